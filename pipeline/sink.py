"""Labelled rows -> staged Parquet files and one commit per manifest shard; returns a receipt of what was written.

Data first, the commit last: a block that dies in between leaves files that nothing names. Names are derived from all
that a block holds, labels included: written twice it overwrites itself, and an attempt with other results overwrites
nothing that a commit already names.
"""

import hashlib
import io
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.commits import LABELLED, QUARANTINED, SKIPPED, Commit, Outcome, outcome_table
from pipeline.ledger import RunFolder
from pipeline.receipt import receipt_of
from pipeline.storage import open_store
from schemas import __version__
from schemas.errors import RowError
from schemas.rows import ENGINE_COLUMN, ImageRow, Label, rows_of
from schemas.tables import ALL_TABLES, QUARANTINE_TABLE, carried_name, staged_schema


@dataclass(frozen=True, kw_only=True)
class SinkConfig:
    output_uri: str
    checkpoint: str
    """Written into every label row: the checkpoint's name and digest."""
    recipe_digests: Mapping[str, str]
    carried_schema: pa.Schema | None
    run: int = 1
    """The number of the run that writes."""


class LabelSink:
    """{row, carried, engine} -> one receipt per block, see `pipeline.receipt`; `engine` may be missing."""

    def __init__(self, *, config: SinkConfig) -> None:
        self._config = config
        self._folder = RunFolder(config.output_uri)

    def __call__(self, block: Mapping[str, Any]) -> dict[str, list[Any]]:
        rows = rows_of(block)
        by_shard: dict[str, list[ImageRow]] = defaultdict(list)
        for row in rows:
            by_shard[row.manifest_shard].append(row)
        for shard, shard_rows in by_shard.items():
            self._write(shard, shard_rows)
        return receipt_of(rows, block.get(ENGINE_COLUMN, ()))

    def _write(self, shard: str, rows: Sequence[ImageRow]) -> None:
        tables: dict[str, list[tuple[dict[str, Any], bytes]]] = defaultdict(list)
        for row in rows:
            for label in row.labels:
                tables[label.table].append((self._label_record(row, label), row.carried))
            for recipe, error in self._failures(row):
                tables[QUARANTINE_TABLE].append((_quarantine_record(row, recipe, error), row.carried))
        outcomes = [outcome for row in rows for outcome in self._outcomes(row)]
        digests = {recipe: self._config.recipe_digests[recipe] for _, recipe, *_ in outcomes}
        name = _name_of(rows, digests)
        for table in ALL_TABLES:
            if table in tables:
                self._put_table(table, name, tables[table])
        commit = Commit(
            files=dict.fromkeys(sorted(tables), name),
            recipe_digests=digests,
            outcomes=outcome_table(outcomes),
        )
        self._folder.put_commit(shard, name, commit)

    def _put_table(self, table: str, name: str, entries: Sequence[tuple[dict[str, Any], bytes]]) -> None:
        schema = staged_schema(table, self._config.carried_schema)
        own = pa.Table.from_pylist([record for record, _ in entries], schema=staged_schema(table))
        columns = {field.name: own[field.name] for field in own.schema}
        if self._config.carried_schema is not None:
            # Joined as Arrow, not through Python values: a decimal or a nanosecond stays what it was.
            carried = pa.concat_tables([_read_carried(stream) for _, stream in entries])
            columns |= {carried_name(name): carried[name] for name in carried.column_names}
        buffer = io.BytesIO()
        written = pa.Table.from_arrays([columns[field.name] for field in schema], schema=schema)
        pq.write_table(written, buffer, compression="zstd")
        uri = self._folder.staged_uri(table, name)
        open_store(uri).put(uri, buffer.getvalue())

    def _label_record(self, row: ImageRow, label: Label) -> dict[str, Any]:
        return {
            "sample_id": row.sample_id,
            "image_uri": row.image_uri,
            "image_sha256": row.image_sha256,
            "width_px": row.width_px,
            "height_px": row.height_px,
            "tiles_wide": row.tiles_wide,
            "tiles_high": row.tiles_high,
            "more_images": [
                {"uri": image.uri, "sha256": image.sha256, "width_px": image.width_px, "height_px": image.height_px}
                for image in row.images[1:]
            ],
            "recipe": label.recipe,
            "recipe_digest": label.recipe_digest,
            "checkpoint": self._config.checkpoint,
            "labelmill_version": __version__,
            "instruction": label.instruction,
            "variant": label.variant,
            "prompt": label.prompt,
            "parameters": label.parameters,
            "num_prompt_tokens": label.num_prompt_tokens,
            "num_output_tokens": label.num_output_tokens,
            "finish_reason": label.finish_reason,
            "mean_logprob": label.mean_logprob,
            "attempts": label.attempts,
            "flags": [*row.flags, *label.flags],
            "item": label.item,
            **label.values,
        }

    def _failures(self, row: ImageRow) -> list[tuple[str, RowError]]:
        if row.error is not None:
            return [(recipe, row.error) for recipe in row.recipes]
        return list(row.recipe_errors)

    def _outcomes(self, row: ImageRow) -> list[Outcome]:
        num_labels = Counter(label.recipe for label in row.labels)
        failures = dict(self._failures(row))
        outcomes = []
        for recipe in row.recipes:
            error = failures.get(recipe)
            status = QUARANTINED if error else LABELLED if num_labels[recipe] else SKIPPED
            outcomes.append(
                Outcome(
                    sample_id=row.sample_id,
                    recipe=recipe,
                    status=status,
                    num_rows=1 if error else num_labels[recipe],
                    error_kind=str(error.kind) if error else "",
                    attempts=row.num_earlier_attempts + 1,
                    run=self._config.run,
                )
            )
        return outcomes


def _read_carried(carried: bytes) -> pa.Table:
    """The one row of carried columns that `ImageRow.carried` holds."""
    with pa.ipc.open_stream(carried) as stream:
        return stream.read_all()


def _quarantine_record(row: ImageRow, recipe: str, error: RowError) -> dict[str, Any]:
    return {
        "sample_id": row.sample_id,
        "image_uri": row.image_uri or row.place,
        "recipe": recipe,
        "stage": str(error.stage),
        "error_kind": str(error.kind),
        "permanent": error.kind.permanent,
        "message": error.message,
        "attempts": row.num_earlier_attempts + 1,
        "item": 0,
    }


def _name_of(rows: Sequence[ImageRow], recipe_digests: Mapping[str, str]) -> str:
    digests = sorted("\0".join(pair) for pair in recipe_digests.items())
    results = sorted(row.to_json() for row in rows)
    return hashlib.sha256("\n".join([*digests, *results]).encode()).hexdigest()[:32]
