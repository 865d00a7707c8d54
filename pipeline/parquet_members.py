"""A Parquet table and a row in it -> the bytes of that row's image, a few rows at a time.

It knows where bytes lie; not what they are, nor which rows a job wants.
"""

import contextlib
import re
from collections.abc import Iterator
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.patience import Patience
from pipeline.storage import StorageError, check_readable, open_store
from schemas.errors import ErrorKind

IMAGE_BATCH_ROWS = 4
_READ_BUFFER_BYTES = 1 << 20
_BYTES_MEMBER = re.compile(r"(\d+):(\d+)(?::(\d+))?", re.ASCII)


class BytesMember(NamedTuple):
    row_group: int
    row: int
    position: int = 0
    """In the list of images of the row."""


def bytes_member(row_group: int, row_in_group: int, index: int | None = None) -> str:
    """The `member` of an image whose bytes lie in a table. `index`: of a list of images; None where there is none."""
    return f"{row_group}:{row_in_group}" if index is None else f"{row_group}:{row_in_group}:{index}"


def parse_bytes_member(member: str) -> BytesMember | None:
    """The parts of a `bytes_member`; None for any other: then the image's `uri` names a plain file."""
    match = _BYTES_MEMBER.fullmatch(member)
    return BytesMember(*(int(number) for number in match.groups() if number is not None)) if match else None


def image_leaf(table: pq.ParquetFile, column: str, field: str) -> str:
    """The name of the field `bytes` or `path` of an image column, also of one of lists: `images.list.element.path`."""
    return next(leaf for leaf in _leaves(table, column) if leaf.endswith(f".{field}"))


def _leaves(table: pq.ParquetFile, column: str) -> list[str]:
    paths = [table.schema.column(index).path for index in range(len(table.schema))]
    return [path for path in paths if path.startswith(f"{column}.")]


@contextlib.contextmanager
def open_table(uri: str, *, patience: Patience | None = None) -> Iterator[pq.ParquetFile]:
    """A Parquet file whose column chunks are read piece by piece; closed with the block.

    Raises:
        StorageError: the file cannot be read; UNREADABLE, also from within the block, if it is not valid
        Parquet.
    """
    with open_store(uri, patience=patience).open(uri) as file, _unreadable_as_storage_error(uri):
        yield pq.ParquetFile(file, buffer_size=_READ_BUFFER_BYTES, pre_buffer=False)


@contextlib.contextmanager
def open_encoded(uri: str, encoded: bytes) -> Iterator[pq.ParquetFile]:
    """As `open_table`, of a file that was read from `uri` already."""
    with _unreadable_as_storage_error(uri):
        yield pq.ParquetFile(pa.BufferReader(encoded))


@contextlib.contextmanager
def _unreadable_as_storage_error(uri: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except (pa.ArrowException, OSError) as error:
        raise StorageError(ErrorKind.UNREADABLE, f"{uri}: not a readable Parquet file ({error})") from error


def read_batches(table: pq.ParquetFile, row_group: int, columns: list[str], batch_rows: int) -> Iterator[Any]:
    """Record batches of some columns of one row group; nested fields are named `column.field`."""
    return table.iter_batches(batch_rows, row_groups=[row_group], columns=columns, use_threads=False)


def _bytes_of(image: Any) -> bytes:
    value = image["bytes"] if isinstance(image, dict) else image
    # A null URI is named like an image in the table, and then the column holds strings.
    return value if isinstance(value, bytes) else b""


class MemberReader:
    """Reads images out of one column of Parquet tables, and keeps its place between two calls.

    Of a list of images, all of one row are held.

    Rows of one row group asked for in order read that row group once. A row before the place starts it again.
    """

    def __init__(self, image_column: str, *, patience: Patience | None = None) -> None:
        self._image_column = image_column
        self._patience = patience
        self._place: tuple[str, str, int] | None = None
        self._next_row = 0
        self._values: Iterator[list[bytes]] = iter(())
        self._of_row: list[bytes] = []
        """The images of the row before the next one."""

    def read(self, table_uri: str, *, version: str, row_group: int, row: int, position: int = 0) -> bytes:
        """The bytes of one image; b"" if they are null.

        Raises:
            StorageError: the table cannot be read, has changed, or has no such column or row; the next call opens
                it anew.
        """
        if (table_uri, version, row_group) != self._place or row != self._next_row - 1:
            self._go_to(table_uri, version, row_group, row)
        if position >= len(self._of_row):
            message = f"{table_uri}: no image {position} in row {row} of its group; list the source again"
            raise StorageError(ErrorKind.CHANGED, message)
        return self._of_row[position]

    def _go_to(self, table_uri: str, version: str, row_group: int, row: int) -> None:
        place = (table_uri, version, row_group)
        if place != self._place or row < self._next_row:
            self._values = self._column_values(table_uri, version, row_group)
            self._place, self._next_row = place, 0
        try:
            while self._next_row <= row:
                self._of_row = next(self._values)
                self._next_row += 1
        except StopIteration:
            self._place = None
            raise StorageError(
                ErrorKind.CHANGED, f"{table_uri}: no row {row} in row group {row_group}; list the source again"
            ) from None
        except StorageError:
            self._place = None
            raise

    def _column_values(self, table_uri: str, version: str, row_group: int) -> Iterator[list[bytes]]:
        column = self._image_column
        info = open_store(table_uri, patience=self._patience).head(table_uri)
        check_readable(info, max_bytes=None, version=version)
        with open_table(table_uri, patience=self._patience) as table:
            if column not in table.schema_arrow.names or row_group >= table.num_row_groups:
                raise StorageError(
                    ErrorKind.CHANGED,
                    f"{table_uri}: no column {column!r} in a row group {row_group}; list the source again",
                )
            has_structs = any(path.endswith(".bytes") for path in _leaves(table, column))
            leaf = image_leaf(table, column, "bytes") if has_structs else column
            for batch in read_batches(table, row_group, [leaf], IMAGE_BATCH_ROWS):
                for scalar in batch.column(column):
                    value = scalar.as_py()
                    yield [_bytes_of(image) for image in (value if isinstance(value, list) else [value])]
