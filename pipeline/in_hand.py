"""Which rows a worker has in hand, written down before it touches them: how a row that kills its worker is found.

    <output>/_run/in_hand/<run>/block-<digest>-<once>.json   a block that was begun and has not ended
    <output>/_run/in_hand/<run>/alone-<sample>-<once>.json   a row of such a block, tried again, alone in its worker

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
        name = f"block-{_name_of(rows)}"
        deaths = self._records(name)
        if not deaths:
            with self._record(name, rows):
                yield False
            return
        yield True
        for uri in deaths:
            open_store(uri).delete(uri)

    @contextmanager
    def alone(self, row: ImageRow) -> Iterator[RowError | None]:
        """Around the work on one row, while nothing else is in the worker's hands. Gives the reason to leave it."""
        name = f"alone-{row.sample_id}"
        num_deaths = len(self._records(name))
        if num_deaths >= MAX_DEATHS:
            message = f"{num_deaths} workers died while they labelled this image and nothing else"
            yield RowError(kind=ErrorKind.WORKER_DIED, message=message)
            return
        with self._record(name, [row]):
            yield None

    def _records(self, name: str) -> list[str]:
        return [info.uri for info in open_store(self._uri).list_or_empty(self._uri, starting_with=f"{name}-")]

    @contextmanager
    def _record(self, name: str, rows: Sequence[ImageRow]) -> Iterator[None]:
        """Removed however the work ends, as long as the process lives."""
        uri = join_uri(self._uri, f"{name}-{uuid.uuid4().hex}.json")
        open_store(uri).put(uri, json.dumps([row.image_uri or row.place for row in rows]).encode())
        try:
            yield
        finally:
            open_store(uri).delete(uri)


def _name_of(rows: Sequence[ImageRow]) -> str:
    return hashlib.sha256("\n".join(sorted(row.sample_id for row in rows)).encode()).hexdigest()[:32]
