"""Files of JSON samples -> the rows of their samples. Reads the files and no image.

A row's `place` is `file_uri#number`: the line, from 1, or the place in an array, from 0. Its `version` is the hash of
the sample's text. So appending samples changes no row, a sample that was changed is a new row, and a sample that stands
before others moves them: to tell a moved sample from a new one, all hashes of a file would have to be held.

A sample that cannot be understood is a row with its reason.
"""

import contextlib
import functools
import gzip
import posixpath
import zlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, BinaryIO, cast

import pyarrow as pa

from pipeline.conversation import SampleError, kind_of, named_image
from pipeline.json_reader import RawSample, read_lines, read_values
from pipeline.sample_fields import carried_texts, fields_of
from pipeline.source import SourceColumns, SourceRow
from pipeline.storage import ObjectInfo, open_store
from schemas.errors import ErrorKind, RowError
from schemas.rows import RowImage

LINES_EXTENSIONS, VALUES_EXTENSION, GZIP_EXTENSION = (".jsonl", ".ndjson"), ".json", ".gz"
IMAGE_KEYS = ("images", "image", "image_path", "image_url", "image_uri", "file_name")
CARRIED_BY_DEFAULT = ("id",)


def is_json(uri: str) -> bool:
    """Whether the name is one of a file of JSON samples."""
    return _extension(uri) in (*LINES_EXTENSIONS, VALUES_EXTENSION)


class JsonSamples:
    """A source whose samples are lines or array elements of JSON files, which name their images by URIs."""

    image_column: str | None = None

    def __init__(
        self,
        files: Sequence[ObjectInfo],
        *,
        folder_uri: str,
        image_key: str | None,
        image_root: str | None,
        carry: Sequence[str] | None,
        columns: SourceColumns,
        num_ignored: int = 0,
    ) -> None:
        """
        Args:
            image_key: None for the one of `IMAGE_KEYS` that a sample has.
            image_root: the folder that relative names of images start from; None for that of their file.
            carry: None for `CARRIED_BY_DEFAULT`. All are carried as text; what is no text, as its JSON.
        """
        assert files, "a source has at least one file"
        self._files = tuple(files)
        self.folder_uri = folder_uri
        self.num_ignored = num_ignored
        self._image_key, self._image_root, self._columns = image_key, image_root, columns
        names = CARRIED_BY_DEFAULT if carry is None else tuple(carry)
        self.carried_schema = pa.schema([(name, pa.string()) for name in names]) if names else None
        self._nothing_carried = self._carried({})

    def rows(self) -> Iterator[SourceRow]:
        num_rows = 0
        for info in self._files:
            for row in self._file_rows(info):
                num_rows += 1
                yield row
        if num_rows == 0:
            raise ValueError(f"no sample found in {len(self._files)} JSON files, the first {self._files[0].uri}")

    def _file_rows(self, info: ObjectInfo) -> Iterator[SourceRow]:
        base = self._image_root or info.uri.rpartition("/")[0]
        are_lines = _extension(info.uri) in LINES_EXTENSIONS
        number = 0 if are_lines else -1
        with _open(info.uri) as file:
            samples = read_lines(file) if are_lines else read_values(file)
            try:
                for sample in samples:
                    number = sample.number
                    yield self._row(sample, f"{info.uri}#{number}", _shown(info.uri, number, are_lines), base)
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                lost = RawSample(number=number + 1, digest="", error=f"cannot be unpacked, nor what follows: {error}")
                yield self._row(lost, f"{info.uri}#{lost.number}", _shown(info.uri, lost.number, are_lines), base)

    def _row(self, sample: RawSample, place: str, shown: str, base: str) -> SourceRow:
        fields: dict[str, Any] = {"images": ()}
        try:
            if sample.error:
                raise SampleError(sample.error)
            if not isinstance(sample.value, Mapping):
                raise SampleError(f"is {kind_of(sample.value)} instead of an object")
            fields["carried"] = self._carried(sample.value)
            fields |= self._fields(sample.value, base)
        except (SampleError, RecursionError) as error:
            reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
            fields.setdefault("carried", self._nothing_carried)
            fields["error"] = RowError(kind=ErrorKind.BAD_SAMPLE, message=f"{shown}: {reason}")
        return SourceRow(place=place, version=sample.digest, **fields)

    def _fields(self, sample: Mapping[str, Any], base: str) -> dict[str, Any]:
        image_of = functools.partial(named_image, base=base)
        return fields_of(sample, self._columns, self._images(sample, image_of), image_of)

    def _images(self, sample: Mapping[str, Any], image_of: Any) -> tuple[RowImage, ...]:
        keys = IMAGE_KEYS if self._image_key is None else (self._image_key,)
        # An empty name or list is how some write that there is no image.
        named = [key for key in keys if sample.get(key) not in (None, "", [])]
        if len(named) > 1 and {"image", "images"} <= {*named}:
            raise SampleError("has both image and images: set source.image_column to one of them")
        if not named:
            return ()
        value = sample[named[0]]
        return tuple(map(image_of, value if isinstance(value, list) else [value]))

    def _carried(self, sample: Mapping[str, Any]) -> bytes:
        return b"" if self.carried_schema is None else carried_texts(sample, self.carried_schema)


@contextlib.contextmanager
def _open(uri: str) -> Iterator[BinaryIO]:
    with open_store(uri).open(uri) as file:
        if not uri.lower().endswith(GZIP_EXTENSION):
            yield file
            return
        with gzip.open(file) as unpacked:
            yield cast(BinaryIO, unpacked)


def _extension(uri: str) -> str:
    name = uri.lower().removesuffix(GZIP_EXTENSION)
    return posixpath.splitext(name)[1]


def _shown(uri: str, number: int, are_lines: bool) -> str:
    return f"{uri}, {'line' if are_lines else 'sample'} {number}"
