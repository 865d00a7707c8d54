"""How the rows of one block ended -> a commit record, and back.

Two encodings: JSON for the commit of a block, Parquet for the one commit that takes the place of all others of a
manifest shard once it is finalized. Knows no storage, nor which of several outcomes counts (see `pipeline.settled`).
"""

import io
import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

LABELLED, QUARANTINED, SKIPPED = "labelled", "quarantined", "skipped"
OUTCOMES = (LABELLED, QUARANTINED, SKIPPED)

OUTCOME_SCHEMA = pa.schema(
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
    """How one (image, recipe) ended: labelled with so many rows, quarantined, or skipped (nothing was asked of it)."""

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


assert Outcome._fields == tuple(OUTCOME_SCHEMA.names)


def outcome_table(outcomes: Iterable[Outcome]) -> pa.Table:
    """As columns: a manifest shard has hundreds of thousands of them."""
    columns = list(zip(*outcomes, strict=True)) or [()] * len(OUTCOME_SCHEMA)
    return pa.table([pa.array(*of) for of in zip(columns, OUTCOME_SCHEMA.types, strict=True)], schema=OUTCOME_SCHEMA)


@dataclass(frozen=True, kw_only=True)
class Commit:
    """`files`: per table the name of one staged file, where the block had rows for that table."""

    files: Mapping[str, str]
    recipe_digests: Mapping[str, str]
    """Of the recipes in `outcomes`."""
    outcomes: pa.Table
    """With `OUTCOME_SCHEMA`."""

    def to_json(self) -> bytes:
        return json.dumps({**self._head(), "outcomes": self.outcomes.to_pydict()}).encode()

    def to_parquet(self) -> bytes:
        outcomes = self.outcomes.replace_schema_metadata({"labelmill.commit": json.dumps(self._head())})
        buffer = io.BytesIO()
        pq.write_table(outcomes, buffer, compression="zstd")
        return buffer.getvalue()

    @classmethod
    def from_json(cls, encoded: bytes) -> "Commit":
        record = json.loads(encoded)
        outcomes = pa.table([pa.array(record["outcomes"][of.name], of.type) for of in OUTCOME_SCHEMA], OUTCOME_SCHEMA)
        return cls(files=record["files"], recipe_digests=record["recipe_digests"], outcomes=outcomes)

    @classmethod
    def from_parquet(cls, encoded: bytes) -> "Commit":
        outcomes = pq.ParquetFile(pa.BufferReader(encoded)).read(use_threads=False)
        head = json.loads(outcomes.schema.metadata[b"labelmill.commit"])
        return cls(
            files=head["files"], recipe_digests=head["recipe_digests"], outcomes=outcomes.replace_schema_metadata()
        )

    def _head(self) -> dict[str, Any]:
        return {"files": dict(self.files), "recipe_digests": dict(self.recipe_digests)}
