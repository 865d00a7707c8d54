"""Parquet tables -> the rows of their images, without reading the images.

It reads the footer, the small columns and, where images are URIs, those; it does not know how a job uses them.

A row's `place` is `table_uri#row`, because several rows may ask about one image. Its image is named in one of two ways:

- bytes in the table: `uri` is the place, `member` is `row_group:row_in_group`, version is the table's;
- a URI in the table: `uri` is that URI, and there is no version: finding it would take one request for each row.
  Whether it may be followed is asked when it is fetched.

A row without an image, null, is named in the first way, and is found empty when it is fetched.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet_columns import ImageKind, TableLayout, table_layout
from pipeline.parquet_members import IMAGE_BATCH_ROWS, bytes_member, open_table, read_batches
from pipeline.source import SourceColumns, SourceRow
from pipeline.storage import ObjectInfo, resolve_uri
from schemas.rows import RowImage

_BATCH_ROWS = 256


class ParquetTables:
    """A source whose images are rows of Parquet tables that all carry the same columns along."""

    def __init__(
        self,
        tables: Sequence[ObjectInfo],
        *,
        folder_uri: str,
        image_column: str | None,
        carry: Sequence[str] | None,
        columns: SourceColumns,
        num_ignored: int = 0,
    ) -> None:
        """Reads the footer of the first table; the others are compared with it as `rows` comes to them.

        Raises:
            ValueError: a column that is missing, ambiguous or of a wrong type.
        """
        assert tables, "a source has at least one table"
        self._tables = tuple(tables)
        self.folder_uri = folder_uri
        self._carry = carry
        self._columns = columns
        self.num_ignored = num_ignored
        with open_table(self._tables[0].uri) as table:
            layout = self._layout(table, self._tables[0], image_column)
        self.image_column: str = layout.image_column
        self.carried_schema: pa.Schema | None = layout.carried_schema

    def rows(self) -> Iterator[SourceRow]:
        num_rows = 0
        for info in self._tables:
            with open_table(info.uri) as table:
                layout = self._layout(table, info, self.image_column)
                self._check_same_carried(info, layout)
                num_rows += table.metadata.num_rows
                yield from _table_rows(table, info, layout)
        if num_rows == 0:
            raise ValueError(f"no row found in {len(self._tables)} Parquet files, the first {self._tables[0].uri}")

    def _layout(self, table: pq.ParquetFile, info: ObjectInfo, image_column: str | None) -> TableLayout:
        return table_layout(
            table.schema_arrow, table_uri=info.uri, image_column=image_column, carry=self._carry, columns=self._columns
        )

    def _check_same_carried(self, info: ObjectInfo, layout: TableLayout) -> None:
        if layout.carried_schema != self.carried_schema:
            first = self._tables[0].uri
            raise ValueError(
                f"{first} and {info.uri} carry different columns: {_one_line(self.carried_schema)} and "
                f"{_one_line(layout.carried_schema)}; name the common ones in source.carry"
            )


def _table_rows(table: pq.ParquetFile, info: ObjectInfo, layout: TableLayout) -> Iterator[SourceRow]:
    first_row = 0
    for row_group in range(table.num_row_groups):
        num_rows = table.metadata.row_group(row_group).num_rows
        uris = _image_uris(table, row_group, layout)
        fields = _small_fields(table, row_group, layout)
        for row, uri, small in zip(range(num_rows), uris, fields, strict=True):
            place = f"{info.uri}#{first_row + row}"
            yield SourceRow(images=(_image(info, place, bytes_member(row_group, row), uri),), place=place, **small)
        first_row += num_rows


def _image(info: ObjectInfo, place: str, member: str, uri: str | None) -> RowImage:
    if not uri:
        return RowImage(uri=place, version=info.version, member=member)
    return RowImage(uri=resolve_uri(uri, info.uri.rpartition("/")[0]))


def _small_fields(table: pq.ParquetFile, row_group: int, layout: TableLayout) -> Iterator[dict[str, Any]]:
    if not layout.small_columns:
        yield from itertools.repeat({}, table.metadata.row_group(row_group).num_rows)
        return
    for batch in read_batches(table, row_group, list(layout.small_columns), _BATCH_ROWS):
        yield from layout.small_fields(batch)


def _image_uris(table: pq.ParquetFile, row_group: int, layout: TableLayout) -> Iterator[str | None]:
    """For each row, the URI of its image; None where the image lies in the table, or nowhere."""
    column = layout.image_column
    num_rows = table.metadata.row_group(row_group).num_rows
    if layout.image_kind == ImageKind.URI:
        for batch in read_batches(table, row_group, [column], _BATCH_ROWS):
            yield from batch.column(column).to_pylist()
    elif layout.image_kind == ImageKind.BYTES or _all_in_table(table, row_group, column):
        yield from itertools.repeat(None, num_rows)
    else:
        yield from _struct_uris(table, row_group, column)


def _all_in_table(table: pq.ParquetFile, row_group: int, column: str) -> bool:
    """Whether no row of a {bytes, path} column has a path alone: by the footer and the nulls of the paths."""
    num_null_bytes = _num_nulls(table, row_group, f"{column}.bytes")
    if num_null_bytes is None:
        return False
    if num_null_bytes == 0:
        return True
    paths = read_batches(table, row_group, [f"{column}.path"], _BATCH_ROWS)
    return num_null_bytes == sum(batch.column(column).null_count for batch in paths)


def _struct_uris(table: pq.ParquetFile, row_group: int, column: str) -> Iterator[str | None]:
    # Rows with bytes and rows with a path alone share this row group, or its footer does not say: only then
    # are the bytes read here, a few rows at a time, to see which of them are null.
    num_rows = table.metadata.row_group(row_group).num_rows
    if _num_nulls(table, row_group, f"{column}.bytes") == num_rows:
        for batch in read_batches(table, row_group, [f"{column}.path"], _BATCH_ROWS):
            yield from (value and value["path"] for value in batch.column(column).to_pylist())
        return
    for batch in read_batches(table, row_group, [column], IMAGE_BATCH_ROWS):
        values = batch.column(column)
        has_bytes = values.field("bytes").is_valid().to_pylist()
        paths = values.field("path").to_pylist()
        present = values.is_valid().to_pylist()
        for bytes_there, path, there in zip(has_bytes, paths, present, strict=True):
            yield path if there and not bytes_there else None


def _num_nulls(table: pq.ParquetFile, row_group: int, leaf: str) -> int | None:
    metadata = table.metadata.row_group(row_group)
    for index in range(metadata.num_columns):
        chunk = metadata.column(index)
        if chunk.path_in_schema == leaf:
            statistics = chunk.statistics
            return statistics.null_count if statistics is not None and statistics.has_null_count else None
    return None


def _one_line(schema: pa.Schema | None) -> str:
    return "{" + ", ".join(f"{field.name}: {field.type}" for field in schema or ()) + "}"
