"""WebDataset shards -> the rows of their samples. Reads the headers of the tar files and small text members, no image.

A sample is a run of members whose names agree up to the first dot of the base name: the key. What follows that dot says
what a member is: images by the extension of an image; `json` has the sample's columns at its top level, and any other
extension in `.txt` or `.cls` is a column of that name. `__key__` is one as well.

A row's `place` is `shard_uri#number`; its images are named `shard_uri#name`, with `tar:offset:num_bytes` for `member`.
A sample that cannot be understood is a row with its reason; a shard that cannot be read to its end ends the listing.
"""

import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from pipeline.conversation import SampleError
from pipeline.json_reader import parse_sample
from pipeline.listing import IMAGE_EXTENSIONS, is_compressed_tar
from pipeline.range_member import range_member
from pipeline.read_ahead import in_order
from pipeline.sample_fields import carried_texts, fields_of
from pipeline.source import SourceColumns, SourceRow
from pipeline.storage import ObjectInfo, StorageError, open_store, uri_scheme
from pipeline.tar_members import ReadAt, TarError, TarMember, tar_members
from pipeline.window import WindowReader
from schemas.errors import ErrorKind, RowError
from schemas.rows import RowImage

KEY_COLUMN = "__key__"
CARRIED_BY_DEFAULT = (KEY_COLUMN,)
MAX_TEXT_BYTES = 1 << 20
"""Of all texts of one sample: a sample with more is not read."""
MAX_SAMPLE_MEMBERS = 10_000
_SHARDS_AT_ONCE = 8
_KEY_AND_EXTENSION = re.compile(r"((?:.*/)?[^./][^./]*)\.([^/]*)", re.DOTALL)
_TEXT_EXTENSIONS = ("txt", "cls")
_NUMBER = re.compile(r"(\d+)")


class WebDatasetShards:
    """A source whose samples are runs of members of tar files."""

    image_column: str | None = None

    def __init__(
        self,
        shards: Sequence[ObjectInfo],
        *,
        folder_uri: str,
        image_extension: str | None,
        carry: Sequence[str] | None,
        columns: SourceColumns,
        num_ignored: int = 0,
    ) -> None:
        """
        Args:
            image_extension: what follows the key in the names of images, without its dot; None for those of images.
            carry: None for `CARRIED_BY_DEFAULT`. All are carried as text; what is no text, as its JSON.
            num_ignored: files that were passed over beside the shards.

        Raises:
            ValueError: a compressed shard.
        """
        assert shards, "a source has at least one file"
        for info in shards:
            if is_compressed_tar(info.uri):
                raise ValueError(
                    f"{info.uri}: is compressed, so that no image can be read without all that is before it; unpack it "
                    "to a plain .tar (images in it are compressed already)"
                )
        self._shards = tuple(shards)
        self.folder_uri = folder_uri
        self._num_files_ignored = self.num_ignored = num_ignored
        names = CARRIED_BY_DEFAULT if carry is None else tuple(carry)
        self.carried_schema = pa.schema([(name, pa.string()) for name in names]) if names else None
        self._reader = _SampleReader(
            columns, self.carried_schema, image_extension and image_extension.strip(".").lower()
        )

    def rows(self) -> Iterator[SourceRow]:
        """`num_ignored` counts files that are no shards, and members that are neither images nor read as texts.

        Raises:
            StorageError: UNREADABLE for a shard that cannot be read to its end.
        """
        self.num_ignored, num_rows = self._num_files_ignored, 0
        for part in self._parts():
            self.num_ignored += part.num_ignored
            num_rows += part.row is not None
            if part.row is not None:
                yield part.row
        if num_rows == 0:
            raise ValueError(
                f"no sample with an image found in {len(self._shards)} tar files, the first {self._shards[0].uri}"
            )

    def _parts(self) -> Iterator["_Part"]:
        if uri_scheme(self._shards[0].uri) != "s3":
            return itertools.chain.from_iterable(map(self._shard_parts, self._shards))
        # A shard is many requests, each of which waits for the one before: several shards at once.
        whole = in_order(
            lambda info: list(self._shard_parts(info)),
            self._shards,
            num_threads=_SHARDS_AT_ONCE,
            items_per_task=1,
        )
        return itertools.chain.from_iterable(whole)

    def _shard_parts(self, info: ObjectInfo) -> Iterator["_Part"]:
        store = open_store(info.uri)
        try:
            if uri_scheme(info.uri) == "s3":
                remote = WindowReader(lambda first, num_bytes: store.get_range(info, first, num_bytes), info.num_bytes)
                yield from self._reader.parts(info, remote)
                return
            with store.open(info.uri) as file:

                def read_at(place: int, num_bytes: int) -> bytes:
                    file.seek(place)
                    return file.read(num_bytes)

                yield from self._reader.parts(info, read_at)
        except TarError as error:
            raise StorageError(
                ErrorKind.UNREADABLE, f"{info.uri}: cannot be read to its end as a tar file: {error}"
            ) from error


@dataclass(frozen=True, kw_only=True)
class _Part:
    """Of a shard: a row, if any, and how many members beside it were ignored."""

    row: SourceRow | None
    num_ignored: int


@dataclass(kw_only=True)
class _Group:
    """The members of one sample."""

    key: str
    images: list[TarMember] = field(default_factory=list)
    texts: dict[str, bytes] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)
    num_members: int = 0
    num_ignored: int = 0
    num_text_bytes: int = 0
    problem: str = ""
    """The first that was found."""


class _SampleReader:
    def __init__(self, columns: SourceColumns, carried_schema: pa.Schema | None, image_extension: str | None) -> None:
        self._columns, self._carried_schema, self._image_extension = columns, carried_schema, image_extension
        carried = carried_schema.names if carried_schema is not None else []
        self._names = {*columns.asked_for(), *carried} - {KEY_COLUMN}
        # A name may be a key of the JSON or an extension; which of them shows only in a sample.
        self._reads_json = bool({name for name in self._names if not _is_text(name)})

    def parts(self, info: ObjectInfo, read_at: ReadAt) -> Iterator[_Part]:
        group: _Group | None = None
        numbers = itertools.count()
        for member in tar_members(read_at, info.num_bytes):
            if not member.is_file and not member.problem:
                continue  # a folder
            found = _KEY_AND_EXTENSION.fullmatch(member.name)
            if found is None:
                yield _Part(row=None, num_ignored=1)
                continue
            key, extension = found.group(1), found.group(2).lower()
            if group is None or group.key != key:
                if group is not None:
                    yield self._part(info, group, numbers)
                group = _Group(key=key)
            self._add(group, member, extension, read_at)
        if group is not None:
            yield self._part(info, group, numbers)

    def _add(self, group: _Group, member: TarMember, extension: str, read_at: ReadAt) -> None:
        group.num_members += 1
        is_image, is_text = self._is_image(extension), self._is_read(extension)
        if group.num_members > MAX_SAMPLE_MEMBERS:
            group.problem = group.problem or f"has more than {MAX_SAMPLE_MEMBERS} members"
        if not (is_image or is_text) or group.num_members > MAX_SAMPLE_MEMBERS:
            group.num_ignored += 1
            return
        if member.name in group.names:
            group.problem = group.problem or f"has {member.name} twice"
        if member.problem:
            group.problem = group.problem or f"{member.name} {member.problem}"
        group.names.add(member.name)
        if is_image:
            group.images.append(member)
        else:
            self._add_text(group, member, extension, read_at)

    def _add_text(self, group: _Group, member: TarMember, extension: str, read_at: ReadAt) -> None:
        group.num_text_bytes += member.num_bytes
        if group.num_text_bytes > MAX_TEXT_BYTES:
            group.problem = group.problem or f"has more than {MAX_TEXT_BYTES} bytes of text, with {member.name}"
        elif member.is_file:
            group.texts[extension] = read_at(member.offset, member.num_bytes)

    def _part(self, info: ObjectInfo, group: _Group, numbers: Iterator[int]) -> _Part:
        reads_conversation = self._columns.conversation is not None and "json" in group.texts
        if not group.images and not reads_conversation:
            return _Part(row=None, num_ignored=group.num_members)
        return _Part(row=self._row(info, group, f"{info.uri}#{next(numbers)}"), num_ignored=group.num_ignored)

    def _row(self, info: ObjectInfo, group: _Group, place: str) -> SourceRow:
        in_order_of_names = sorted(group.images, key=lambda member: _natural(member.name))
        images = {member.name: _image(info, member) for member in in_order_of_names}
        fields: dict[str, Any] = {"images": tuple(images.values()), "carried": self._carried({KEY_COLUMN: group.key})}
        try:
            if group.problem:
                raise SampleError(group.problem)
            sample = {**_json_of(group), **_texts_of(group), KEY_COLUMN: group.key}
            fields["carried"] = self._carried(sample)
            fields |= fields_of(
                sample,
                self._columns,
                fields["images"],
                lambda name: _named(name, images, group.key),
            )
        except (SampleError, RecursionError) as error:
            reason = "is nested too deeply" if isinstance(error, RecursionError) else str(error)
            message = f"{info.uri}, sample {group.key[:200]}: {reason}"
            fields["error"] = RowError(kind=ErrorKind.BAD_SAMPLE, message=message)
        # Images have the version of their shard.
        return SourceRow(place=place, version="" if fields["images"] else info.version, **fields)

    def _carried(self, sample: Mapping[str, Any]) -> bytes:
        return b"" if self._carried_schema is None else carried_texts(sample, self._carried_schema)

    def _is_image(self, extension: str) -> bool:
        if self._image_extension is not None:
            return extension == self._image_extension
        return f".{extension.rpartition('.')[2]}" in IMAGE_EXTENSIONS

    def _is_read(self, extension: str) -> bool:
        return self._reads_json if extension == "json" else _is_text(extension) and extension in self._names


def _is_text(extension: str) -> bool:
    return extension.rpartition(".")[2] in _TEXT_EXTENSIONS


def _image(info: ObjectInfo, member: TarMember) -> RowImage:
    return RowImage(
        uri=f"{info.uri}#{member.name}",
        version=info.version,
        member=range_member(member.offset, member.num_bytes),
    )


def _named(name: object, images: Mapping[str, RowImage], key: str) -> RowImage:
    """The image that a part of a conversation names by its member's name, or by what follows the key in it."""
    folder = key.rpartition("/")[0]
    for candidate in (name, f"{folder}/{name}", f"{key}.{name}"):
        if isinstance(candidate, str) and candidate in images:
            return images[candidate]
    raise SampleError(f"names an image {name!r:.100}, which is no member of the sample")


def _json_of(group: _Group) -> dict[str, Any]:
    """What is no object has no columns: the annotations of some datasets are lists."""
    if "json" not in group.texts:
        return {}
    parsed = parse_sample(group.texts["json"])
    if parsed.error:
        raise SampleError(f"its json {parsed.error}")
    return dict(parsed.value) if isinstance(parsed.value, Mapping) else {}


def _texts_of(group: _Group) -> dict[str, str]:
    texts = {}
    for extension, encoded in group.texts.items():
        if extension == "json":
            continue
        try:
            texts[extension] = encoded.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise SampleError(f"its {extension} is not UTF-8, at byte {error.start + 1}") from error
    return texts


def _natural(name: str) -> list[tuple[int, int, str]]:
    """For sorting, so that 2 comes before 10."""
    pieces = _NUMBER.split(name)
    return [(1, int(piece), piece) if index % 2 else (0, 0, piece) for index, piece in enumerate(pieces)]
