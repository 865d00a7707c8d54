"""The source of a job file -> its rows: image files by their names, tables by their rows, JSON files by their samples.

It lists and reads small columns and samples; it never reads an image, and does not know whether one can be decoded.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pyarrow as pa

from pipeline.glob_pattern import GlobPattern, glob_pattern, has_wildcard
from pipeline.json_source import JsonSamples, is_json
from pipeline.parquet_source import ParquetTables
from pipeline.patience import FIRST_CONTACT_S, Patience
from pipeline.source import Source, SourceColumns, SourceRow
from pipeline.storage import ObjectInfo, StorageError, Store, canonical_uri, open_store, uri_scheme
from schemas.errors import ErrorKind
from schemas.rows import RowImage

if TYPE_CHECKING:
    from schemas.job import SourceSpec

__all__ = ["ImageFiles", "Source", "SourceColumns", "SourceRow", "open_source"]

# Also what Pillow cannot decode: such a file is an image to whoever put it there, and must end as a quarantined row.
IMAGE_EXTENSIONS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
        *(".avif", ".avifs", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".svg", ".ico"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".psd", ".exr", ".hdr", ".dds", ".qoi", ".pcx", ".sgi"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf"),
    )
)
TABLE_EXTENSION = ".parquet"
_KIND_OF_EXTENSION = {TABLE_EXTENSION: "parquet"} | dict.fromkeys(IMAGE_EXTENSIONS, "images")


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
    listing = _listing(canonical_uri(spec.uri), spec.format, tuple(without))
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
    tables, num_ignored = listing.tables()
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
        for info, kind in self._listing.files():
            if kind == "images":
                yield SourceRow(images=(RowImage(uri=_utf8(info.uri), version=info.version),))
            elif kind == "parquet":
                raise self._listing.mixed(info)
            else:
                self.num_ignored += 1


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What one URI names, listed anew each time; each file is an image, a table, a file of samples or none."""

    uri: str
    format: str
    store: Store
    folder_uri: str
    without: tuple[str, ...] = ()
    pattern: GlobPattern | None = None
    single: bool = False

    def files(self) -> Iterator[tuple[ObjectInfo, str | None]]:
        """Every file there is, with `images`, `parquet`, `json` or (to be ignored) None."""
        if self.single:
            yield self._with_kind(self.store.head(self.uri))
        elif self.pattern is None:
            for info in _list(self.store, self.folder_uri):
                if not self._is_left_out(info):
                    yield self._with_kind(info)
        else:
            for info in _list(self.store, self.folder_uri, starting_with=self.pattern.starting_with):
                if self.pattern.regex.match(self._name_below(info)) and not self._is_left_out(info):
                    yield self._with_kind(info)

    def kind(self, *, reads_columns: bool) -> str:
        """`images`, `parquet` or `json`: what the source is. Looks no further than it must.

        Raises:
            ValueError: there is nothing of the kind.
        """
        found, num_ignored, is_open = set(), 0, self.format == "auto"
        for _, kind in self.files():
            if kind == self.format or kind == "parquet" or (kind == "images" and not reads_columns and is_open):
                return kind
            if kind is not None:
                found.add(kind)
            else:
                num_ignored += 1
        if not found or not is_open:
            raise self._empty(num_ignored)
        return "json" if "json" in found else "images"

    def files_of_samples(self) -> tuple[list[ObjectInfo], int]:
        """All JSON files, and the number of files ignored beside them; images count as named by samples."""
        kinds = [(info, kind) for info, kind in self.files() if kind != "images"]
        return [info for info, kind in kinds if kind == "json"], sum(kind is None for _, kind in kinds)

    def tables(self) -> tuple[list[ObjectInfo], int]:
        """All tables, and the number of files ignored beside them."""
        tables, num_ignored = [], 0
        for info, kind in self.files():
            if kind == "images":
                raise self.mixed(info)
            if kind == "parquet":
                tables.append(info)
            else:
                num_ignored += 1
        return tables, num_ignored

    def mixed(self, info: ObjectInfo) -> ValueError:
        return ValueError(
            f"{self.uri} holds both images and Parquet files ({info.uri}); set source.format to images or parquet"
        )

    def _with_kind(self, info: ObjectInfo) -> tuple[ObjectInfo, str | None]:
        extension = posixpath.splitext(info.uri)[1].lower()
        if self.single or self.pattern is not None:
            by_extension = "parquet" if extension == TABLE_EXTENSION else "json" if is_json(info.uri) else "images"
            return info, (by_extension if self.format == "auto" else self.format)
        if any(segment.startswith(".") for segment in self._name_below(info).split("/")):
            return info, None
        kind = "json" if is_json(info.uri) else _KIND_OF_EXTENSION.get(extension)
        # Images beside samples are those that the samples name.
        return info, (kind if self.format in ("auto", kind) or (self.format, kind) == ("json", "images") else None)

    def _is_left_out(self, info: ObjectInfo) -> bool:
        return any(info.uri == uri or info.uri.startswith(f"{uri}/") for uri in self.without)

    def _name_below(self, info: ObjectInfo) -> str:
        return info.uri[len(self.folder_uri.rstrip("/")) + 1 :]

    def _empty(self, num_ignored: int) -> ValueError:
        wanted = {"images": "image", "parquet": "Parquet file", "json": "JSON file"}.get(
            self.format, "image, Parquet or JSON file"
        )
        return ValueError(f"no {wanted} found at {self.uri} ({num_ignored} other files ignored); check source.uri")


def _listing(uri: str, format_: str, without: tuple[str, ...]) -> Listing:
    store = open_store(uri)
    first_look = open_store(uri, patience=Patience.from_environment(at_most_s=FIRST_CONTACT_S))
    if first_look.exists(uri):
        return Listing(uri=uri, format=format_, store=store, folder_uri=uri.rpartition("/")[0], single=True)
    if not _is_folder(first_look, uri) and has_wildcard(uri):
        pattern = glob_pattern(uri)
        return Listing(
            uri=uri, format=format_, store=store, folder_uri=pattern.folder_uri, without=without, pattern=pattern
        )
    return Listing(uri=uri, format=format_, store=store, folder_uri=uri, without=without)


def _list(store: Store, folder_uri: str, *, starting_with: str = "") -> Iterator[ObjectInfo]:
    if uri_scheme(folder_uri) != "s3":
        return store.list(folder_uri, starting_with=starting_with)
    from pipeline.s3 import S3Store  # not at the top: local jobs need not wait for boto3
    from pipeline.s3_listing import list_ahead

    assert isinstance(store, S3Store)
    return list_ahead(store, folder_uri, starting_with=starting_with)


def _is_folder(store: Store, uri: str) -> bool:
    try:
        return next(store.list(uri), None) is not None
    except StorageError as error:
        if error.kind == ErrorKind.MISSING:
            return False
        raise


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
