"""A job's budget -> which images a run takes up, when it stops, and the error with which it then ends.

Knows no cluster and no labels. The limit of images is exact: no more are listed than it allows. The others are moments,
known once the labels begin, at which the run is asked to stop.
"""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from schemas.budget import BudgetSpec


class BudgetSpentError(RuntimeError):
    """The run has stopped, with work left, because a budget of its job is spent. One line: which, and what is pending.

    `record`: the same for JSON.
    """

    def __init__(self, message: str, record: dict[str, Any]) -> None:
        super().__init__(message)
        self.record = record


@dataclass(frozen=True, kw_only=True)
class Allotment:
    """The part of the pending images that one run takes up."""

    shards: tuple[str, ...]
    last_shard_images: int | None = None
    """Of the last shard only so many; None for all of them."""
    leaves_some: bool = False
    """Whether other images are pending as well."""


def allot(shards: Sequence[str], max_images: int | None, *, num_pending_in: Callable[[str], int]) -> Allotment:
    """Shards in their order until they hold `max_images` pending images; it asks of no more shards than that needs."""
    if max_images is None:
        return Allotment(shards=tuple(shards))
    taken: list[str] = []
    left = max_images
    for shard in shards:
        num_pending = num_pending_in(shard)
        if num_pending and not left:
            return Allotment(shards=tuple(taken), leaves_some=True)
        if num_pending > left:
            return Allotment(shards=(*taken, shard), last_shard_images=left, leaves_some=True)
        if num_pending:
            taken.append(shard)
            left -= num_pending
    return Allotment(shards=tuple(taken))


@dataclass(frozen=True)
class Moment:
    """When something is spent, and what."""

    at: datetime
    budget: str
    """As in a job file: `budget.deadline`."""


def deadline(budget: BudgetSpec, started_at: datetime) -> Moment | None:
    at = budget.stops_at(started_at)
    return None if at is None else Moment(at, f"budget.deadline ({budget.deadline})")


def gpu_hours_spent(budget: BudgetSpec, labels_from: datetime, num_gpus: float) -> Moment | None:
    """When GPUs that are held from `labels_from` on have cost what the budget allows; never without GPUs."""
    if budget.max_gpu_hours is None or not num_gpus:
        return None
    spent_at = labels_from.timestamp() + budget.max_gpu_hours / num_gpus * 3600
    name = f"budget.max_gpu_hours ({budget.max_gpu_hours:g})"
    return Moment(datetime.fromtimestamp(min(spent_at, _END_OF_TIME), UTC), name)


_END_OF_TIME = datetime(9000, 1, 1, tzinfo=UTC).timestamp()


class Watch:
    """Whether one of the moments has come."""

    def __init__(self) -> None:
        self.spent = ""
        """The first budget that is spent."""


@contextmanager
def watch(moments: Sequence[Moment | None], on_spent: Callable[[], None]) -> Iterator[Watch]:
    """Calls `on_spent` once, from a thread, at the first of the moments that comes during the block."""
    known = [moment for moment in moments if moment is not None]
    found, over = Watch(), threading.Event()

    def wait(moment: Moment) -> None:
        while not over.is_set():
            # In pieces: the clock may be set, and no wait is as long as a deadline may be away.
            left_s = (moment.at - datetime.now(UTC)).total_seconds()
            if left_s <= 0:
                found.spent = moment.budget
                on_spent()
                return
            over.wait(min(left_s, 60.0))

    thread = None
    if known:
        first = min(known, key=lambda moment: moment.at)
        thread = threading.Thread(target=wait, args=(first,), name="budget", daemon=True)
        thread.start()
    try:
        yield found
    finally:
        over.set()
        if thread is not None:
            thread.join()
