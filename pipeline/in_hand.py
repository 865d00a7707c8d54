"""Which rows a worker has in hand, written down before it touches them: how a row that kills its worker is found.

    <output>/_run/in_hand/<run>/<block>/<time>.json   a block that was begun and has not ended
    <output>/_run/in_hand/<run>/alone/<sample>/...    a row of such a block, tried once more, alone in its worker

A record that outlives its worker is a death. A block with one is tried row by row; a row that was alone in hand at
two deaths is given up. Kept in the store, because a worker's successor may run on another machine. Knows no Ray.
"""

import hashlib
import json
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from pipeline.storage import join_uri, open_store
from schemas.errors import ErrorKind, RowError
from schemas.rows import ImageRow

MAX_DEATHS = 2


class InHand:
    """The records of one stage of one run. Can be pickled."""

    def __init__(self, in_hand_uri: str, run: int) -> None:
        self._uri = join_uri(in_hand_uri, f"{run:06d}")

    @contextmanager
    def block(self, rows: Sequence[ImageRow]) -> Iterator[bool]:
        """Around the work on a block. Gives whether a worker has died with this block in hand: then its rows are to be
        taken one by one, each `alone`."""
        folder_uri = join_uri(self._uri, _name_of(rows))
        died_before = any(True for _ in open_store(folder_uri).list_or_empty(folder_uri))
        if died_before:
            yield True
            self._forget(folder_uri)
            return
        with _record(folder_uri, rows):
            yield False

    @contextmanager
    def alone(self, row: ImageRow) -> Iterator[RowError | None]:
        """Around the work on one row, while nothing else is in the worker's hands. Gives the reason to leave it."""
        folder_uri = join_uri(self._uri, "alone", row.sample_id)
        num_deaths = sum(1 for _ in open_store(folder_uri).list_or_empty(folder_uri))
        if num_deaths >= MAX_DEATHS:
            message = f"{num_deaths} workers died while they labelled this image and nothing else"
            yield RowError(kind=ErrorKind.WORKER_DIED, message=message)
            return
        with _record(folder_uri, [row]):
            yield None

    def _forget(self, folder_uri: str) -> None:
        store = open_store(folder_uri)
        for info in list(store.list_or_empty(folder_uri)):
            store.delete(info.uri)


@contextmanager
def _record(folder_uri: str, rows: Sequence[ImageRow]) -> Iterator[None]:
    """Removed however the block ends, as long as the process lives."""
    uri = join_uri(folder_uri, f"{uuid.uuid4().hex}.json")
    open_store(uri).put(uri, json.dumps([row.image_uri for row in rows]).encode())
    try:
        yield
    finally:
        open_store(uri).delete(uri)


def _name_of(rows: Sequence[ImageRow]) -> str:
    return hashlib.sha256("\n".join(sorted(row.sample_id for row in rows)).encode()).hexdigest()[:32]
