"""Parquet tables -> the rows of their samples, without reading the images.

It reads the footer, the small columns and, where images are URIs, those; it does not know how a job uses them.

A row's `place` is `table_uri#row`, because several rows may ask about one image. An image is named in one of two ways:

- bytes in the table: `uri` is the place, `member` is `row_group:row_in_group`, with `:index` in a list of images, and
  the version is the table's;
- a URI in the table: `uri` is that URI, and there is no version: finding it would take one request for each row.
  Whether it may be followed is asked when it is fetched.

An image that is null is named in the first way, and is found empty when it is fetched; but beside a conversation, which
may need none, a row whose one image is null has none.
"""

import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.conversation import SampleError, named_image, read_conversation, read_marks
from pipeline.parquet_columns import TableLayout, table_layout
from pipeline.parquet_images import image_entries
from pipeline.parquet_members import bytes_member, open_table, read_batches
from pipeline.source import SourceColumns, SourceRow
from pipeline.storage import ObjectInfo, resolve_uri
from schemas.errors import ErrorKind, RowError
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
        image_root: str | None = None,
        carry: Sequence[str] | None,
        columns: SourceColumns,
        num_ignored: int = 0,
    ) -> None:
        """Reads the footer of the first table; the others are compared with it as `rows` comes to them.

        Args:
            image_root: the folder that relative URIs of images start from; None for that of their table.

        Raises:
            ValueError: a column that is missing, ambiguous or of a wrong type.
        """
        assert tables, "a source has at least one table"
        self._tables = tuple(tables)
        self.folder_uri = folder_uri
        self._carry, self._image_root = carry, image_root
        self._columns = columns
        self.num_ignored = num_ignored
        with open_table(self._tables[0].uri) as table:
            layout = self._layout(table, self._tables[0], image_column)
        self.image_column: str | None = layout.image_column
        self.carried_schema: pa.Schema | None = layout.carried_schema

    def rows(self) -> Iterator[SourceRow]:
        num_rows = 0
        for info in self._tables:
            with open_table(info.uri) as table:
                layout = self._layout(table, info, self.image_column)
                self._check_same_carried(info, layout)
                num_rows += table.metadata.num_rows
                yield from _table_rows(table, info, layout, self._image_root)
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


def _table_rows(
    table: pq.ParquetFile, info: ObjectInfo, layout: TableLayout, image_root: str | None
) -> Iterator[SourceRow]:
    base, first_row = image_root or info.uri.rpartition("/")[0], 0
    for row_group in range(table.num_row_groups):
        num_rows = table.metadata.row_group(row_group).num_rows
        all_entries = image_entries(table, row_group, layout)
        fields = _small_fields(table, row_group, layout)
        for row, entries, small in zip(range(num_rows), all_entries, fields, strict=True):
            place = f"{info.uri}#{first_row + row}"
            images = tuple(
                _image(info, place, bytes_member(row_group, row, index if layout.holds_lists else None), base, entry)
                for index, entry in enumerate(entries)
                if entry != "" or layout.holds_lists or layout.columns.conversation is None
            )
            yield _row(images, place, base, info.version, small)
        first_row += num_rows


def _image(info: ObjectInfo, place: str, member: str, base: str, entry: str | None) -> RowImage:
    if not entry:
        return RowImage(uri=place, version=info.version, member=member)
    return RowImage(uri=resolve_uri(entry, base))


def _row(images: tuple[RowImage, ...], place: str, base: str, version: str, small: dict[str, Any]) -> SourceRow:
    """`version` is the table's: of a row without images nothing else tells that it has changed."""
    fields = dict(small)
    messages, marks = fields.pop("conversation", None), fields.pop("marks", None)
    try:
        if "conversation" in small:
            conversation = read_conversation(messages, images, functools.partial(named_image, base=base))
            fields["turns"], images = conversation.turns, conversation.images
        fields["marks"] = read_marks(marks)
    except SampleError as error:
        fields["error"] = RowError(kind=ErrorKind.BAD_SAMPLE, message=f"{place}: {error}")
    return SourceRow(images=images, place=place, version="" if images else version, **fields)


def _small_fields(table: pq.ParquetFile, row_group: int, layout: TableLayout) -> Iterator[dict[str, Any]]:
    if not layout.small_columns:
        yield from itertools.repeat({}, table.metadata.row_group(row_group).num_rows)
        return
    for batch in read_batches(table, row_group, list(layout.small_columns), _BATCH_ROWS):
        yield from layout.small_fields(batch)


def _one_line(schema: pa.Schema | None) -> str:
    return "{" + ", ".join(f"{field.name}: {field.type}" for field in schema or ()) + "}"
