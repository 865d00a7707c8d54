"""How the rows of one block ended -> a commit record, and back; and which outcome counts where there are several.

Two encodings: JSON for the commit of a block, Parquet for the one commit that takes the place of all others of a
manifest shard once it is finalized. Knows no storage.
"""

import io
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

LABELLED, QUARANTINED, SKIPPED = "labelled", "quarantined", "skipped"
OUTCOMES = (LABELLED, QUARANTINED, SKIPPED)

Pair = tuple[str, str]
"""(sample_id, recipe)"""

_SCHEMA = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("recipe", pa.string()),
        pa.field("status", pa.string()),
        pa.field("num_rows", pa.int32()),
        pa.field("error_kind", pa.string()),
        pa.field("attempts", pa.int32()),
        pa.field("run", pa.int32()),
    ]
)


class Outcome(NamedTuple):
    """How one (image, recipe) ended: labelled with so many rows, quarantined, or skipped (nothing was asked of it).

    A tuple, because planning a run makes one for each pair of a shard.
    """

    sample_id: str
    recipe: str
    status: str
    num_rows: int
    error_kind: str = ""
    """Of a quarantined pair: an `ErrorKind`."""
    attempts: int = 1
    """Runs in which the pair was tried, this one included."""
    run: int = 0
    """The number of the run that tried it last."""

    @property
    def pair(self) -> Pair:
        return self.sample_id, self.recipe

    def counts_before(self, other: "Outcome") -> bool:
        """Whether this outcome of a pair counts and the other does not.

        Labels count before quarantine, the earliest labels (a later run made them again for nothing), and of several
        failures the latest.
        """
        return self._rank > other._rank

    @property
    def _rank(self) -> tuple[int, int]:
        return (0, self.run) if self.status == QUARANTINED else (1, -self.run)


@dataclass(frozen=True, kw_only=True)
class Commit:
    """`files`: per table the name of one staged file, where the block had rows for that table."""

    files: Mapping[str, str]
    recipe_digests: Mapping[str, str]
    """Of the recipes in `outcomes`."""
    outcomes: tuple[Outcome, ...]

    def to_json(self) -> bytes:
        return json.dumps({**self._head(), "outcomes": self._columns()}).encode()

    def to_parquet(self) -> bytes:
        schema = _SCHEMA.with_metadata({"labelmill.commit": json.dumps(self._head())})
        buffer = io.BytesIO()
        pq.write_table(pa.table(self._columns(), schema=schema), buffer, compression="zstd")
        return buffer.getvalue()

    @classmethod
    def from_json(cls, encoded: bytes) -> "Commit":
        record = json.loads(encoded)
        return cls._of(record, [record["outcomes"][name] for name in Outcome._fields])

    @classmethod
    def from_parquet(cls, encoded: bytes) -> "Commit":
        table = pq.read_table(pa.BufferReader(encoded))
        head = json.loads(table.schema.metadata[b"labelmill.commit"])
        return cls._of(head, [table[name].to_pylist() for name in Outcome._fields])

    @classmethod
    def _of(cls, head: Mapping[str, Any], columns: list[list[Any]]) -> "Commit":
        outcomes = tuple(map(Outcome._make, zip(*columns, strict=True)))
        return cls(files=head["files"], recipe_digests=head["recipe_digests"], outcomes=outcomes)

    def _columns(self) -> dict[str, list[Any]]:
        return {name: [outcome[place] for outcome in self.outcomes] for place, name in enumerate(Outcome._fields)}

    def _head(self) -> dict[str, Any]:
        return {"files": dict(self.files), "recipe_digests": dict(self.recipe_digests)}


def settled(commits: Iterable[Commit], recipe_digests: Mapping[str, str]) -> dict[Pair, tuple[Outcome, str]]:
    """Per (sample, recipe) the outcome that counts, and the name of the commit's staged files.

    Args:
        commits: in the order of their names, which decides between two that count alike (a block that Ray ran again).
        recipe_digests: by recipe; what was committed under another digest does not count.
    """
    found: dict[Pair, tuple[Outcome, str]] = {}
    for commit in commits:
        name = next(iter(commit.files.values()), "")
        for outcome in _under(commit, recipe_digests):
            before = found.get(outcome[:2])
            if before is None or outcome.counts_before(before[0]):
                found[outcome[:2]] = outcome, name
    return found


def _under(commit: Commit, recipe_digests: Mapping[str, str]) -> Iterator[Outcome]:
    wanted = {recipe for recipe, digest in commit.recipe_digests.items() if recipe_digests.get(recipe, None) == digest}
    return (outcome for outcome in commit.outcomes if outcome.recipe in wanted)
