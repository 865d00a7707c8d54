"""A dataset and a table of it -> its parts, `<dataset>/<table>/part-NNNNN-of-NNNNN.parquet`, and the rows in them.

Whoever reads written tables begins here. Does not know what is in the rows.
"""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet_members import open_table
from pipeline.storage import join_uri, open_store

BATCH_ROWS = 65_536
_PART_NAME = re.compile(r"part-(?P<index>\d{5})-of-(?P<total>\d{5})\.parquet")


def part_name(index: int, total: int) -> str:
    return f"part-{index:05d}-of-{total:05d}.parquet"


@dataclass(frozen=True, kw_only=True)
class TableParts:
    """What lies in the folder of one table. `uris`: of the parts, in order; `strangers`: names of other files."""

    table: str
    uris: Sequence[str]
    strangers: Sequence[str]
    numbers: Sequence[tuple[int, int]]
    """Of each part its index, and of how many parts it says to be one."""

    @classmethod
    def at(cls, dataset_uri: str, table: str) -> "TableParts":
        """Empty where no such table was written."""
        folder_uri = join_uri(dataset_uri, table)
        found = open_store(folder_uri).list_or_empty(folder_uri)
        names = [info.uri.removeprefix(f"{folder_uri}/") for info in found]
        parts = [match for name in names if (match := _PART_NAME.fullmatch(name))]
        return cls(
            table=table,
            uris=[join_uri(folder_uri, part.string) for part in parts],
            strangers=sorted({*names} - {part.string for part in parts}),
            numbers=[(int(part["index"]), int(part["total"])) for part in parts],
        )

    @property
    def are_whole(self) -> bool:
        """Whether they are all parts of one table, whatever else lies beside them."""
        num_parts = len(self.numbers)
        return num_parts > 0 and list(self.numbers) == [(index, num_parts) for index in range(num_parts)]

    def problems(self) -> Iterator[str]:
        """A sentence for each thing that is missing or does not belong."""
        for name in self.strangers:
            yield f"table {self.table}: {name} is not a part that a run wrote: move it elsewhere"
        totals = sorted({total for _, total in self.numbers})
        if len(totals) != 1:
            yield f"table {self.table}: its parts are of {' and of '.join(map(str, totals or [0]))}: run the job again"
        for index in sorted({*range(max(totals, default=0))} - {index for index, _ in self.numbers}):
            yield f"table {self.table}: part {index} of 0..{totals[-1] - 1} is missing: run the job again"


def batches_from(file: pq.ParquetFile, row: int, batch_rows: int) -> Iterator[tuple[int, pa.RecordBatch]]:
    """The rows of one file from number `row` on, in batches of at most so many, each with the number of its first row.
    Row groups before them are not read."""
    end = 0
    for group in range(file.num_row_groups):
        begin, end = end, end + file.metadata.row_group(group).num_rows
        if end <= row:
            continue
        for batch in file.iter_batches(batch_rows, row_groups=[group], use_threads=False):
            left_out = min(max(0, row - begin), batch.num_rows)
            if left_out < batch.num_rows:
                yield begin + left_out, batch.slice(left_out)
            begin += batch.num_rows


def read_parts(
    uris: Sequence[str], batch_rows: int = BATCH_ROWS, *, columns: Sequence[str] | None = None
) -> Iterator[pa.RecordBatch]:
    """The rows of parts, one part after another, in batches of at most so many.

    Args:
        columns: by default all.

    Raises:
        StorageError: one of them cannot be read.
    """
    for uri in uris:
        with open_table(uri) as part:
            yield from part.iter_batches(
                batch_rows, columns=None if columns is None else list(columns), use_threads=False
            )
