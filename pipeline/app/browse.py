"""A finished output -> pages of its tables' rows, and the pictures that they are about.

Batches are read one after another from where the last page ended: however large a table is, no more than one batch of
it is held, and a search gives up for the moment after `MAX_ROWS_READ` rows.
"""

import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.exports.finished_run import FinishedRun
from pipeline.exports.pictures import fetch_of
from pipeline.manifest import image_rows, sample_ids
from pipeline.parquet_members import open_table
from pipeline.previews import Preview, Previews
from pipeline.storage import StorageError
from pipeline.table_parts import batches_from
from schemas.errors import ErrorKind, RowError
from schemas.rows import ENCODED_COLUMN, ImageRow, rows_of, to_columns
from schemas.tables import OWN, QUARANTINE_TABLE

BATCH_ROWS = 256
MAX_ROWS_READ = 50_000
PREVIEW_SIDE = 640
_SEARCHED = ("image_uri", "instruction", "error_kind", "message")


@dataclass(frozen=True, kw_only=True)
class Filter:
    """Rows of this recipe, with this flag (of quarantined ones: kind of error), that hold this text, whatever its case;
    "" takes all."""

    recipe: str = ""
    flag: str = ""
    text: str = ""


@dataclass(frozen=True, kw_only=True, order=True)
class Place:
    """A row of a table: the number of its part, and its own in it."""

    part: int = 0
    row: int = 0


@dataclass(frozen=True, kw_only=True)
class Page:
    """`next` is where to go on; None after the last row. `num_read`: rows that were looked at."""

    rows: Sequence[Mapping[str, Any]]
    next: Place | None
    num_read: int


class OutputReader:
    """May be asked from several threads at once. Close it."""

    def __init__(self, output: str) -> None:
        """Raises ValueError for an output that is not finished."""
        self._run = FinishedRun.at(output)
        self.output, self.recipes = output, tuple(self._run.recipes)
        self.tables = (*(table for table, num in self._run.num_rows.items() if num), QUARANTINE_TABLE)
        self._fetch = fetch_of(self._run.job, self._run.folder)
        self._previews = Previews(self._run.job.limits, side=PREVIEW_SIDE)
        self._fetching = threading.Lock()

    def page(self, table: str, wanted: Filter, place: Place = Place(), *, num_rows: int = 8) -> Page:
        """The next rows from `place` on that the filter lets pass.

        Raises:
            ValueError: there is no such table.
            StorageError: it cannot be read.
        """
        if table not in self.tables:
            raise ValueError(f"this output has no table {table!r}; it has: {', '.join(self.tables)}")
        rows: list[dict[str, Any]] = []
        num_read = 0
        for at, batch in self._batches(table, place):
            found = pc.indices_nonzero(_mask(batch, table, wanted)).to_pylist()
            left = num_rows - len(rows)
            rows += batch.take(pa.array(found[:left], pa.int64())).to_pylist()
            if len(found) > left:
                return Page(rows=rows, next=replace(at, row=at.row + found[left]), num_read=num_read + found[left])
            num_read += batch.num_rows
            if num_read >= MAX_ROWS_READ:
                return Page(rows=rows, next=replace(at, row=at.row + batch.num_rows), num_read=num_read)
        return Page(rows=rows, next=None, num_read=num_read)

    def pictures(self, sample_id: str, *, sha256: str = "") -> list[Preview] | RowError:
        """Of one sample, as they are today.

        Args:
            sha256: of the first image when it was labelled: another one is an error. "" where nobody knows.
        """
        try:
            row = self._manifest_row(sample_id)
        except StorageError as error:
            return RowError(kind=error.kind, message=str(error))
        if row is None:
            return RowError(kind=ErrorKind.MISSING, message=f"the manifest has no sample {sample_id}")
        if row.error is not None:
            return row.error
        with self._fetching:  # a stage is for one caller at a time
            block = self._fetch(to_columns([row]))
        (fetched,), (encoded,) = rows_of(block), block[ENCODED_COLUMN]
        if fetched.error is not None:
            return fetched.error
        if sha256 and fetched.image_sha256 != sha256:
            return RowError(kind=ErrorKind.CHANGED, message="is not the image that was labelled any more")
        return self._previews.of(encoded) if encoded else []

    def close(self) -> None:
        self._previews.close()
        self._fetch.close()

    def _batches(self, table: str, place: Place) -> Iterator[tuple[Place, pa.RecordBatch]]:
        """From `place` on, each with the place of its first row."""
        for part, uri in enumerate(self._run.part_uris(table)):
            if part < place.part:
                continue
            skip = place.row if part == place.part else 0
            with open_table(uri) as file:
                for row, batch in batches_from(file, skip, BATCH_ROWS):
                    yield Place(part=part, row=row), batch

    def _manifest_row(self, sample_id: str) -> ImageRow | None:
        for shard in self._run.shards:
            uri = self._run.folder.shard_uri(shard)
            place = pc.index(sample_ids(uri), sample_id).as_py()
            if place >= 0:
                return _row_at(uri, shard, place)
        return None


def _row_at(shard_uri: str, shard: str, place: int) -> ImageRow:
    with open_table(shard_uri) as file:
        for _, batch in batches_from(file, place, BATCH_ROWS):
            (row,) = image_rows(batch.slice(0, 1), manifest_shard=shard, recipes=[()])
            return row
    raise AssertionError(f"{shard_uri} has an id of row {place}, and no such row")


def _mask(batch: pa.RecordBatch, table: str, wanted: Filter) -> pa.BooleanArray:
    mask = pa.array([True] * batch.num_rows)
    if wanted.recipe:
        mask = pc.and_(mask, pc.equal(batch.column("recipe"), wanted.recipe))
    if wanted.flag and table == QUARANTINE_TABLE:
        mask = pc.and_(mask, pc.equal(batch.column("error_kind"), wanted.flag))
    elif wanted.flag:
        flags = batch.column("flags").to_pylist()
        mask = pc.and_(mask, pa.array([wanted.flag in (of_row or ()) for of_row in flags]))
    if wanted.text:
        mask = pc.and_(mask, _holds(batch, table, wanted.text))
    return pc.fill_null(mask, False)


def _holds(batch: pa.RecordBatch, table: str, text: str) -> pa.BooleanArray:
    own = [field.name for field in OWN.get(table, ()) if pa.types.is_string(field.type)]
    found = pa.array([False] * batch.num_rows)
    for name in (*own, *_SEARCHED):
        if name in batch.schema.names:
            here = pc.match_substring(batch.column(name), text, ignore_case=True)
            found = pc.or_(found, pc.fill_null(here, False))
    return found
