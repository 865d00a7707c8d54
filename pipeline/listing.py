"""What one URI names -> its files, each with the kind of source that its name makes it.

It lists names and sizes; it opens no file.
"""

import posixpath
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.braces import expand_braces, folder_before_braces, has_braces
from pipeline.glob_pattern import GlobPattern, glob_pattern, has_wildcard
from pipeline.json_source import is_json
from pipeline.patience import FIRST_CONTACT_S, Patience
from pipeline.read_ahead import in_order
from pipeline.storage import ObjectInfo, StorageError, Store, open_store, uri_scheme
from schemas.errors import ErrorKind

# Also what Pillow cannot decode: such a file is an image to whoever put it there, and must end as a quarantined row.
IMAGE_EXTENSIONS = frozenset(
    (
        *(".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".apng", ".gif", ".bmp", ".dib", ".tif", ".tiff", ".webp"),
        *(".avif", ".avifs", ".heic", ".heif", ".hif", ".jxl", ".jp2", ".j2k", ".jpx", ".jpf", ".svg", ".ico"),
        *(".ppm", ".pgm", ".pbm", ".pnm", ".pfm", ".tga", ".psd", ".exr", ".hdr", ".dds", ".qoi", ".pcx", ".sgi"),
        *(".dng", ".cr2", ".cr3", ".nef", ".arw", ".raf"),
    )
)
_KIND_OF_EXTENSION = {".parquet": "parquet", ".tar": "webdataset", ".pdf": "pdf"} | dict.fromkeys(
    IMAGE_EXTENSIONS, "images"
)
_CONTAINERS = ("parquet", "webdataset", "pdf")
_FILES_OF_KIND = {
    "images": "images",
    "parquet": "Parquet files",
    "json": "JSON files",
    "webdataset": "tar files",
    "pdf": "PDF files",
}


@dataclass(frozen=True, kw_only=True)
class Listing:
    """What one URI names, listed anew each time."""

    uri: str
    format: str
    store: Store
    folder_uri: str
    without: tuple[str, ...] = ()
    pattern: GlobPattern | None = None
    names: tuple[str, ...] = ()
    """Of files that must be there, in order; then nothing is listed."""

    def files(self) -> Iterator[tuple[ObjectInfo, str | None]]:
        """Every file there is, with its kind, a key of `_FILES_OF_KIND`, or (to be ignored) None."""
        if self.names:
            for info in in_order(self.store.head, self.names, items_per_task=1):
                yield self._with_kind(info)
        elif self.pattern is None:
            for info in _list(self.store, self.folder_uri):
                if not self._is_left_out(info):
                    yield self._with_kind(info)
        else:
            for info in _list(self.store, self.folder_uri, starting_with=self.pattern.starting_with):
                if self.pattern.regex.match(self._name_below(info)) and not self._is_left_out(info):
                    yield self._with_kind(info)

    def kind(self, *, reads_columns: bool) -> str:
        """What the source is. Looks no further than it must.

        Raises:
            ValueError: there is nothing of the kind.
        """
        found, num_ignored, is_open = set(), 0, self.format == "auto"
        for _, kind in self.files():
            if kind == self.format or kind in _CONTAINERS or (kind == "images" and not reads_columns and is_open):
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
        return [info for info, kind in kinds if kind == "json"], sum(kind != "json" for _, kind in kinds)

    def files_of(self, wanted: str) -> Iterator[ObjectInfo | None]:
        """Every file of one kind, and None for each that is ignored. JSON files beside others are about them.

        Raises:
            ValueError: there is one of another kind.
        """
        for info, kind in self.files():
            if kind not in (wanted, "json", None):
                raise ValueError(
                    f"{self.uri} holds both {_FILES_OF_KIND[wanted]} and {_FILES_OF_KIND[kind]} ({info.uri}); set "
                    f"source.format to {wanted} or {kind}"
                )
            yield info if kind == wanted else None

    def all_of(self, wanted: str) -> tuple[list[ObjectInfo], int]:
        """As `files_of`: these files, and the number of those that are ignored."""
        found = list(self.files_of(wanted))
        infos = [info for info in found if info is not None]
        return infos, len(found) - len(infos)

    def _with_kind(self, info: ObjectInfo) -> tuple[ObjectInfo, str | None]:
        if self.names or self.pattern is not None:
            return info, (_kind_of(info.uri) or "images") if self.format == "auto" else self.format
        if any(segment.startswith(".") for segment in self._name_below(info).split("/")):
            return info, None
        kind = _kind_of(info.uri)
        # Images beside samples are those that the samples name.
        is_wanted = self.format in ("auto", kind) or (self.format, kind) == ("json", "images")
        return info, kind if is_wanted else None

    def _is_left_out(self, info: ObjectInfo) -> bool:
        return any(info.uri == uri or info.uri.startswith(f"{uri}/") for uri in self.without)

    def _name_below(self, info: ObjectInfo) -> str:
        return info.uri[len(self.folder_uri.rstrip("/")) + 1 :]

    def _empty(self, num_ignored: int) -> ValueError:
        wanted = _FILES_OF_KIND.get(self.format, f"{', '.join(list(_FILES_OF_KIND.values())[:-1])} or PDF files")
        return ValueError(f"no {wanted} found at {self.uri} ({num_ignored} other files ignored); check source.uri")


def _kind_of(uri: str) -> str | None:
    if is_json(uri):
        return "json"
    return "webdataset" if is_compressed_tar(uri) else _KIND_OF_EXTENSION.get(posixpath.splitext(uri)[1].lower())


def list_uri(uri: str, format_: str, without: tuple[str, ...]) -> Listing:
    """What a canonical URI names: a file, a folder with all that is below it, a glob, or names with braces. A name that
    exists is neither of the last two.

    Args:
        without: files, and folders with all that is in them, that are passed over as if they were not there.
    """
    store = open_store(uri)
    first_look = open_store(uri, patience=Patience.from_environment(at_most_s=FIRST_CONTACT_S))
    if first_look.exists(uri):
        return Listing(uri=uri, format=format_, store=store, folder_uri=uri.rpartition("/")[0], names=(uri,))
    if _is_folder(first_look, uri):
        return Listing(uri=uri, format=format_, store=store, folder_uri=uri, without=without)
    if has_braces(uri):
        if has_wildcard(uri):
            raise ValueError(f"{uri}: has braces and wildcards; use one of them")
        names, folder_uri = tuple(expand_braces(uri)), folder_before_braces(uri)
        return Listing(uri=uri, format=format_, store=store, folder_uri=folder_uri, names=names)
    if has_wildcard(uri):
        pattern = glob_pattern(uri)
        return Listing(
            uri=uri, format=format_, store=store, folder_uri=pattern.folder_uri, without=without, pattern=pattern
        )
    return Listing(uri=uri, format=format_, store=store, folder_uri=uri, without=without)


def is_compressed_tar(uri: str) -> bool:
    return uri.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst"))


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
