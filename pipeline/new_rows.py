"""A source and the manifest of earlier runs -> the rows of the source that the manifest does not have.

Both are in the order of the source, so they are read side by side: memory does not grow with either. Knows nothing of
what was done with the rows.
"""

import heapq
from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from pipeline.manifest import read_shard, sample_id
from pipeline.source import Source, SourceRow

_COLUMNS = ("place", "image_uri", "sample_id")

Place = tuple[str, int]
"""A file's URI and the number of the sample in it: ascending in every source. Code points, as stores list keys."""


class NewRows:
    """A source without the rows that earlier manifests hold.

    runs: for each earlier run the URIs of its manifest shards; the rows of each are in the order of the source.
    """

    def __init__(self, source: Source, runs: Sequence[Sequence[str]]) -> None:
        self._source, self._runs = source, tuple(map(tuple, runs))

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
            if sample_id(row) not in known.at(place):
                yield row


def place_in_source(place: str, image_uri: str) -> Place:
    """Of a row's `place`, or the file that is the row's image where it has none."""
    if not place:
        return image_uri, 0
    file_uri, _, number = place.rpartition("#")
    return file_uri, int(number)


class _KnownImages:
    """(place, sample_id) in ascending order -> the ids at one place after another."""

    def __init__(self, listed: Iterable[tuple[Place, str]]) -> None:
        self._listed = iter(listed)
        self._next = next(self._listed, None)
        self._place: Place | None = None
        self._ids: set[str] = set()

    def at(self, place: Place) -> set[str]:
        """Places are asked for in ascending order."""
        if place != self._place:
            self._place, self._ids = place, set()
        while self._next is not None and self._next[0] <= place:
            if self._next[0] == place:
                self._ids.add(self._next[1])
            self._next = next(self._listed, None)
        return self._ids


def _listed(shard_uris: Sequence[str]) -> Iterator[tuple[Place, str]]:
    for uri in shard_uris:
        for batch in read_shard(uri, columns=_COLUMNS):
            columns = (batch.column(name).to_pylist() for name in _COLUMNS)
            for place, image_uri, known_id in zip(*columns, strict=True):
                yield place_in_source(place, image_uri), known_id
