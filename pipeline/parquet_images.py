"""The image column of a Parquet table -> for each row what it names its images by, without reading the images.

An entry is the URI of an image, None for an image whose bytes lie in the table, or "" for nothing, a null. Only where
the footer and the small columns do not say which bytes are null, the bytes are read, a few rows at a time.
"""

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import pyarrow.parquet as pq

from pipeline.parquet_columns import ImageKind, TableLayout
from pipeline.parquet_members import IMAGE_BATCH_ROWS, image_leaf, read_batches

Entries = Sequence[str | None]

_BATCH_ROWS = 256


def image_entries(table: pq.ParquetFile, row_group: int, layout: TableLayout) -> Iterator[Entries]:
    """For each row of a row group the entries of its images: one, or, where the column holds lists, any number."""
    column, num_rows = layout.image_column, table.metadata.row_group(row_group).num_rows
    if column is None:
        return itertools.repeat((), num_rows)
    if layout.image_kind == ImageKind.URI:
        values = _values(table, row_group, column, _BATCH_ROWS, layout)
        return ([uri or "" for uri in uris] for uris in values)
    if layout.image_kind == ImageKind.STRUCT:
        return _structs(table, row_group, column, layout)
    # Only beside a conversation is a null no image: else it is found out when it is fetched.
    if layout.columns.conversation is None or _num_nulls(table, row_group, column) == 0:
        return itertools.repeat((None,), num_rows)
    return _bytes(table, row_group, column)


def _bytes(table: pq.ParquetFile, row_group: int, column: str) -> Iterator[Entries]:
    for batch in read_batches(table, row_group, [column], IMAGE_BATCH_ROWS):
        for is_there in batch.column(column).is_valid().to_pylist():
            yield (None if is_there else "",)


def _structs(table: pq.ParquetFile, row_group: int, column: str, layout: TableLayout) -> Iterator[Entries]:
    """Of a column of {bytes, path}, or of lists of them."""
    num_null_bytes = _num_nulls(table, row_group, image_leaf(table, column, "bytes"))
    if num_null_bytes == 0 and not layout.holds_lists:
        return itertools.repeat((None,), table.metadata.row_group(row_group).num_rows)
    leaf = image_leaf(table, column, "path")
    paths = lambda: _values(table, row_group, leaf, _BATCH_ROWS, layout)  # noqa: E731 - read twice
    if num_null_bytes == 0:
        return ((None,) * len(images) for images in paths())
    # An empty list counts as one null among the bytes.
    if num_null_bytes == sum(sum(image is None for image in images) or not images for images in paths()):
        return (["" if image is None else None for image in images] for images in paths())
    has_paths_only = num_null_bytes == _num_values(table, row_group, leaf)
    values = paths() if has_paths_only else _values(table, row_group, column, IMAGE_BATCH_ROWS, layout)
    return ([_entry(image) for image in images] for images in values)


def _entry(image: dict[str, Any] | None) -> str | None:
    if image is None:
        return ""
    return None if image.get("bytes") is not None else image["path"] or ""


def _values(
    table: pq.ParquetFile, row_group: int, leaf: str, batch_rows: int, layout: TableLayout
) -> Iterator[list[Any]]:
    """For each row what stands in it: of a list column as much as there is, else one value."""
    for batch in read_batches(table, row_group, [leaf], batch_rows):
        for value in batch.column(0).to_pylist():
            yield (value or []) if layout.holds_lists else [value]


def _num_values(table: pq.ParquetFile, row_group: int, leaf: str) -> int | None:
    chunk = _chunk(table, row_group, leaf)
    return None if chunk is None else int(chunk.num_values)


def _num_nulls(table: pq.ParquetFile, row_group: int, leaf: str) -> int | None:
    chunk = _chunk(table, row_group, leaf)
    statistics = None if chunk is None else chunk.statistics
    return statistics.null_count if statistics is not None and statistics.has_null_count else None


def _chunk(table: pq.ParquetFile, row_group: int, leaf: str) -> Any:
    metadata = table.metadata.row_group(row_group)
    chunks = (metadata.column(index) for index in range(metadata.num_columns))
    return next((chunk for chunk in chunks if chunk.path_in_schema == leaf), None)
