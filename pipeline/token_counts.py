"""Labels, as rows or in the tables of a finished run -> how many tokens each recipe reads and writes for one."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger import RunFolder
from pipeline.table_parts import TableParts, read_parts
from pipeline.versions import dataset_uri
from schemas.rows import ImageRow

MEASURED, LAST_RUN = "measured", "last run"
_COLUMNS = ("recipe", "num_prompt_tokens", "num_output_tokens")
_MAX_ROWS = 100_000


@dataclass(kw_only=True)
class TokenCounts:
    """Of one recipe: sums over labels. What an answer that a gate sent back took is not in them."""

    origin: str
    """`MEASURED` or `LAST_RUN`."""
    num_labels: int = 0
    num_prompt_tokens: int = 0
    num_output_tokens: int = 0
    max_tokens: int = 0
    """The longest prompt with its answer."""

    def add(self, *, num_labels: int, prompt_tokens: int, output_tokens: int, max_tokens: int) -> None:
        self.num_labels += num_labels
        self.num_prompt_tokens += prompt_tokens
        self.num_output_tokens += output_tokens
        self.max_tokens = max(self.max_tokens, max_tokens)

    def as_dict(self) -> dict[str, float | str]:
        """With means per label."""
        per_label = max(1, self.num_labels)
        means = {
            "prompt_tokens": self.num_prompt_tokens / per_label,
            "output_tokens": self.num_output_tokens / per_label,
        }
        return asdict(self) | means


def tokens_of_rows(rows: Iterable[ImageRow]) -> dict[str, TokenCounts]:
    """By recipe."""
    counts: dict[str, TokenCounts] = defaultdict(lambda: TokenCounts(origin=MEASURED))
    for row in rows:
        for label in row.labels:
            prompt, output = label.num_prompt_tokens, label.num_output_tokens
            counts[label.recipe].add(
                num_labels=1, prompt_tokens=prompt, output_tokens=output, max_tokens=prompt + output
            )
    return dict(counts)


def tokens_of_output(folder: RunFolder, tables: Sequence[str]) -> Mapping[str, TokenCounts]:
    """By recipe, of the first hundred thousand labels of each table; nothing where no dataset was written."""
    counts: dict[str, TokenCounts] = defaultdict(lambda: TokenCounts(origin=LAST_RUN))
    uri = dataset_uri(folder)
    for table in tables:
        num_rows = 0
        for batch in read_parts(TableParts.at(uri, table).uris, columns=_COLUMNS):
            _add_batch(counts, batch)
            num_rows += batch.num_rows
            if num_rows >= _MAX_ROWS:
                break
    return dict(counts)


def _add_batch(counts: dict[str, TokenCounts], batch: pa.RecordBatch) -> None:
    for recipe in pc.unique(batch.column("recipe")).to_pylist():
        of_recipe = batch.filter(pc.equal(batch.column("recipe"), recipe))
        prompt, output = of_recipe.column("num_prompt_tokens"), of_recipe.column("num_output_tokens")
        counts[recipe].add(
            num_labels=of_recipe.num_rows,
            prompt_tokens=pc.sum(prompt).as_py(),
            output_tokens=pc.sum(output).as_py(),
            max_tokens=pc.max(pc.add(prompt, output)).as_py(),
        )
