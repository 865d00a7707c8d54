"""The source of a job file -> its rows: image files by their names, tables by their rows, JSON files by their samples.

It lists and reads small columns and samples; it never reads an image, and does not know whether one can be decoded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.json_source import JsonSamples
from pipeline.listing import Listing, list_uri
from pipeline.parquet_source import ParquetTables
from pipeline.source import Source, SourceColumns, SourceRow
from pipeline.storage import canonical_uri
from pipeline.webdataset_source import WebDatasetShards
from schemas.rows import RowImage

if TYPE_CHECKING:
    from schemas.job import SourceSpec

__all__ = ["ImageFiles", "Source", "SourceColumns", "SourceRow", "open_source"]


def open_source(spec: SourceSpec, columns: SourceColumns, *, without: Sequence[str] = ()) -> Source:
    """Finds out what `spec.uri` names: one file, a folder or prefix (recursively), or a glob.

    Below a folder, files with the extension of an image are images, `.parquet` files are tables, `.json`, `.jsonl` and
    `.ndjson` files (also with `.gz`) hold samples, everything else and every hidden file is ignored. Tables come before
    samples. Beside images, samples are the source if the job reads columns, and then the images are those that the
    samples name; else the images are, and the JSON files are about them. What a glob matches is never ignored. A name
    that exists is not taken for a glob.

    Args:
        without: files, and folders with all that is in them, that are passed over as if they were not there.

    Raises:
        StorageError: the URI cannot be read.
        ValueError: nothing there; images and tables mixed; a column that is missing, ambiguous or of a wrong type.
    """
    listing = list_uri(canonical_uri(spec.uri), spec.format, tuple(without))
    reads_columns = bool(columns.asked_for() or spec.carry or spec.image_column)
    kind = listing.kind(reads_columns=reads_columns)
    if kind == "images":
        _refuse_columns(spec, columns)
        return ImageFiles(listing)
    image_root = None if spec.image_root is None else canonical_uri(spec.image_root)
    if kind == "json":
        files, num_ignored = listing.files_of_samples()
        return JsonSamples(
            files,
            folder_uri=listing.folder_uri,
            image_key=spec.image_column,
            image_root=image_root,
            carry=spec.carry,
            columns=columns,
            num_ignored=num_ignored,
        )
    if kind == "webdataset":
        shards, num_ignored = listing.all_of("webdataset")
        return WebDatasetShards(
            shards,
            folder_uri=listing.folder_uri,
            image_extension=spec.image_column,
            carry=spec.carry,
            columns=columns,
            num_ignored=num_ignored,
        )
    tables, num_ignored = listing.all_of("parquet")
    return ParquetTables(
        tables,
        folder_uri=listing.folder_uri,
        image_column=spec.image_column,
        image_root=image_root,
        carry=spec.carry,
        columns=columns,
        num_ignored=num_ignored,
    )


class ImageFiles:
    """A source whose images are files of their own; nothing is carried along."""

    carried_schema: pa.Schema | None = None
    image_column: str | None = None

    def __init__(self, listing: Listing) -> None:
        self._listing = listing
        self.folder_uri = listing.folder_uri
        self.num_ignored = 0

    def rows(self) -> Iterator[SourceRow]:
        self.num_ignored = 0
        for info in self._listing.files_of("images"):
            if info is not None:
                yield SourceRow(images=(RowImage(uri=_utf8(info.uri), version=info.version),))
            else:
                self.num_ignored += 1


def _refuse_columns(spec: SourceSpec, columns: SourceColumns) -> None:
    asked_for = (*columns.asked_for(), *(spec.carry or ()), spec.image_column)
    if any(asked_for):
        names = ", ".join(repr(name) for name in asked_for if name)
        raise ValueError(f"{spec.uri} holds image files, which have no columns; {names} must come from Parquet or JSON")


def _utf8(uri: str) -> str:
    try:
        uri.encode()
    except UnicodeEncodeError as error:
        raise ValueError(f"{uri!r}: this file name is not valid UTF-8; rename the file") from error
    return uri
