"""The manifest and the tables of an output -> its samples one by one, each with its rows of every table.

Tables have the order of the manifest, so all are read once, side by side, and little of them is held. Does not know
what becomes of the samples, nor where their images are.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.exports.finished_run import FinishedRun
from pipeline.manifest import image_rows, read_shard
from pipeline.table_parts import read_parts
from schemas.rows import ImageRow
from schemas.tables import PRESENT, SOURCE_STATE

_BATCH_ROWS = 256


@dataclass(frozen=True, kw_only=True)
class Sample:
    """`row` is of the manifest; `rows` by table, in the table's order, those that are left, and no empty ones.

    `asked` are the same before any was left out; `beside` those of tables that are looked at and not exported.
    """

    row: ImageRow
    rows: Mapping[str, pa.Table]
    asked: Mapping[str, pa.Table]
    beside: Mapping[str, pa.Table]


@dataclass(kw_only=True)
class LeftOut:
    """Rows that are not exported: because of their flags, where a row with two of them counts for both, or because the
    source has their image no longer."""

    by_flag: Counter[str] = field(default_factory=Counter)
    num_rows: int = 0
    num_rows_not_in_source: int = 0
    """Of images that are gone or have changed; counted here alone."""


class Samples:
    """Iterate once."""

    def __init__(
        self, run: FinishedRun, tables: Sequence[str], without_flags: Sequence[str], *, beside: Sequence[str] = ()
    ) -> None:
        self._run = run
        self._tables = {table: _TableRows(run, table) for table in tables}
        self._beside = {table: _TableRows(run, table) for table in beside}
        self._without = frozenset(without_flags)
        self.left_out = LeftOut(by_flag=Counter(dict.fromkeys(without_flags, 0)))
        """Complete once all samples were taken."""

    def __iter__(self) -> Iterator[Sample]:
        """Samples of which at least one row is left, in the order of the manifest.

        Raises:
            ValueError: a table is not in that order, or has not as many rows as the run has written.
        """
        for shard in self._run.shards:
            for batch in read_shard(self._run.folder.shard_uri(shard), batch_rows=_BATCH_ROWS):
                for row in image_rows(batch, manifest_shard=shard, recipes=[()] * batch.num_rows):
                    sample = self._sample(row)
                    if sample.rows:
                        yield sample
        for rows in (*self._tables.values(), *self._beside.values()):
            rows.check_end()

    def _sample(self, row: ImageRow) -> Sample:
        asked, beside = _taken(self._tables, row.sample_id), _taken(self._beside, row.sample_id)
        if any(rows[SOURCE_STATE.name][0].as_py() != PRESENT for rows in asked.values()):  # all rows have the same
            self.left_out.num_rows_not_in_source += sum(rows.num_rows for rows in asked.values())
            return Sample(row=row, rows={}, asked=asked, beside=beside)
        left = {name: self._without_flagged(rows) for name, rows in asked.items()}
        left = {name: rows for name, rows in left.items() if rows.num_rows}
        return Sample(row=row, rows=left, asked=asked, beside=beside)

    def _without_flagged(self, rows: pa.Table) -> pa.Table:
        if not self._without:
            return rows
        found = [self._without.intersection(flags or ()) for flags in rows["flags"].to_pylist()]
        for flags in found:
            self.left_out.by_flag.update(flags)
            self.left_out.num_rows += bool(flags)
        return rows.filter(pa.array([not flags for flags in found]))


class _TableRows:
    """The rows of one table, sample after sample."""

    def __init__(self, run: FinishedRun, table: str) -> None:
        self._name, self._output_uri, self._num_expected = table, run.folder.output_uri, run.num_rows[table]
        self._num_rows = 0
        self._groups = _groups(run.part_uris(table))
        self._next: tuple[str, pa.Table] | None = next(self._groups, None)

    def take(self, sample_id: str) -> pa.Table | None:
        """Of this sample, if they are next; samples are asked for in the order of the manifest."""
        if self._next is None or self._next[0] != sample_id:
            return None
        rows = self._next[1]
        self._num_rows += rows.num_rows
        self._next = next(self._groups, None)
        return rows

    def check_end(self) -> None:
        if self._next is not None or self._num_rows != self._num_expected:
            where = f"at sample {self._next[0]}" if self._next else f"after {self._num_rows} rows"
            raise ValueError(
                f"table {self._name} is not what the run has written: {where} it departs from the manifest; "
                f"labelmill verify {self._output_uri} says more"
            )


def _taken(tables: Mapping[str, _TableRows], sample_id: str) -> dict[str, pa.Table]:
    return {name: rows for name, table in tables.items() if (rows := table.take(sample_id)) is not None}


def _groups(part_uris: Sequence[str]) -> Iterator[tuple[str, pa.Table]]:
    """Neighbouring rows of one sample together, also where a batch or a part ends among them."""
    sample_id: str | None = None
    pieces: list[pa.RecordBatch] = []
    for batch in read_parts(part_uris, _BATCH_ROWS):
        runs = pc.run_end_encode(batch.column("sample_id"))
        begin = 0
        for value, end in zip(runs.values.to_pylist(), runs.run_ends.to_pylist(), strict=True):
            if value != sample_id and pieces:
                yield str(sample_id), pa.Table.from_batches(pieces)
                pieces = []
            sample_id = value
            pieces.append(batch.slice(begin, end - begin))
            begin = end
    if pieces:
        yield str(sample_id), pa.Table.from_batches(pieces)
