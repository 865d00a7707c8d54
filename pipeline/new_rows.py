"""A source and the manifest of earlier runs -> the rows of the source that the manifest does not have, and the images
of the manifest that the source does not have.

Both are in the order of the source, so they are read side by side: memory does not grow with either. Knows nothing of
what was done with the rows.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from pipeline.absent import FoundAbsent
from pipeline.manifest import read_shard, sample_id
from pipeline.source import Source, SourceRow
from schemas.tables import CHANGED, GONE

_COLUMNS = ("place", "image_uri", "sample_id")

Place = tuple[str, int]
"""A file's URI and the number of the sample in it: ascending in every source. Code points, as stores list keys."""


class NewRows:
    """A source without the rows that earlier manifests hold.

    runs: for each earlier run the URIs of its manifest shards; the rows of each are in the order of the source.
    """

    def __init__(self, source: Source, runs: Sequence[Sequence[str]]) -> None:
        self._source, self._runs = source, tuple(map(tuple, runs))
        self.absent: FoundAbsent | None = None
        """Set once the source was read to its end: nothing can be said of what was not listed."""

    @property
    def folder_uri(self) -> str:
        return self._source.folder_uri

    @property
    def carried_schema(self) -> pa.Schema | None:
        return self._source.carried_schema

    @property
    def image_column(self) -> str | None:
        return self._source.image_column

    @property
    def num_ignored(self) -> int:
        return self._source.num_ignored

    def rows(self) -> Iterator[SourceRow]:
        """Raises ValueError where the source does not come in its order: then nothing could be told from it."""
        known = _KnownImages(heapq.merge(*(_listed(run) for run in self._runs)))
        last: Place = ("", -1)
        for row in self._source.rows():
            place = place_in_source(row.place, row.image_uri)
            if self._runs and place < last:
                raise ValueError(
                    f"{row.place or row.image_uri} is listed after {last[0]}: this store lists its objects out of "
                    "order, so that what is new in it cannot be told; choose another output, which lists all of them"
                )
            last = place
            if not known.has(place, sample_id(row)):
                yield row
        self.absent = known.finish()


def place_in_source(place: str, image_uri: str) -> Place:
    """Of a row's `place`, or the file that is the row's image where it has none."""
    if not place:
        return image_uri, 0
    file_uri, _, number = place.rpartition("#")
    return file_uri, int(number)


class _KnownImages:
    """(place, sample_id, shard) in ascending order -> whether an image is among them, asked in the same order."""

    def __init__(self, listed: Iterable[tuple[Place, str, str]]) -> None:
        self._listed = iter(listed)
        self._next = next(self._listed, None)
        self._place: Place | None = None
        self._unseen: dict[str, str] = {}
        """At the place at hand: by id, the shard of those that were not asked for."""
        self._seen: set[str] = set()
        self._absent = FoundAbsent()

    def has(self, place: Place, sample_id: str) -> bool:
        """Places are asked for in ascending order."""
        if place != self._place:
            self._move_to(place)
        if self._unseen.pop(sample_id, None) is not None:
            self._seen.add(sample_id)
        return sample_id in self._seen

    def finish(self) -> FoundAbsent:
        """Those that were not asked for, after all that there is was."""
        self._leave()
        while self._next is not None:
            self._skip()
        return self._absent

    def _move_to(self, place: Place) -> None:
        self._leave()
        self._place, self._seen = place, set()
        while self._next is not None and self._next[0] < place:
            self._skip()
        while self._next is not None and self._next[0] == place:
            _, known_id, shard = self._next
            self._unseen[known_id] = shard
            self._next = next(self._listed, None)

    def _leave(self) -> None:
        for known_id, shard in self._unseen.items():
            self._absent.add(shard, known_id, CHANGED)
        self._unseen = {}

    def _skip(self) -> None:
        assert self._next is not None
        _, known_id, shard = self._next
        self._absent.add(shard, known_id, GONE)
        self._next = next(self._listed, None)


def _listed(shard_uris: Sequence[str]) -> Iterator[tuple[Place, str, str]]:
    for uri in shard_uris:
        shard = uri.rpartition("/")[2]
        for batch in read_shard(uri, columns=_COLUMNS):
            columns = (batch.column(name).to_pylist() for name in _COLUMNS)
            for place, image_uri, known_id in zip(*columns, strict=True):
                yield place_in_source(place, image_uri), known_id, shard
