"""A job's budget -> which images a run takes up, when it stops, and the error with which it then ends.

Knows no cluster and no labels. The limit of images is exact: no more are listed than it allows. The others are moments,
known once the labels begin, at which the run is asked to stop.
"""

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
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
    num_images: int | None = None
    """Of all of them; None where nobody had to count."""
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
        if num_pending > left:
            some = {"last_shard_images": left, "shards": (*taken, shard)} if left else {"shards": tuple(taken)}
            return Allotment(**some, num_images=max_images, leaves_some=True)
        if num_pending:
            taken.append(shard)
            left -= num_pending
    return Allotment(shards=tuple(taken), num_images=max_images - left)


@dataclass(frozen=True)
class Moment:
    """When something is spent, and what."""

    at: datetime
    budget: str
    """As in the job file, with its value."""

    @property
    def is_past(self) -> bool:
        return self.at <= datetime.now(UTC)


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
        """The budget because of which the run was asked to stop; "" for none."""


@contextmanager
def watch(moments: Sequence[Moment | None], requested: threading.Event) -> Iterator[Watch]:
    """Sets the event at the first of the moments that comes during the block, unless it is set by then."""
    known = [moment for moment in moments if moment is not None]
    if not known:
        yield Watch()
        return
    found, over = Watch(), threading.Event()
    first = min(known, key=lambda moment: moment.at)
    thread = threading.Thread(target=_wait, args=(first, found, requested, over), name="budget", daemon=True)
    thread.start()
    try:
        yield found
    finally:
        over.set()
        thread.join()


def _wait(moment: Moment, found: Watch, requested: threading.Event, over: threading.Event) -> None:
    while not moment.is_past:
        # In pieces: the clock may be set, and no wait is as long as a deadline may be away.
        if over.wait(max(0.0, min((moment.at - datetime.now(UTC)).total_seconds(), 60.0))):
            return
    if not requested.is_set():
        found.spent = moment.budget
        requested.set()


def budget_facts(
    budget: BudgetSpec, num_to_label: int, forecast: Mapping[str, Any] | None, now: datetime
) -> dict[str, dict[str, Any]]:
    """For each part that the job has: its `limit`, what is `expected` of one run that does all there is (None where it
    was not measured, or is never spent), and whether that `fits`.

    Args:
        forecast: as `pipeline.plan` makes it.
        now: when the run would start.
    """
    gpu_hours = forecast["gpu_hours"] if forecast else None
    stops_at = budget.stops_at(now)
    limits: dict[str, tuple[float | None, float | None]] = {
        "max_images": (budget.max_images, num_to_label),
        "max_gpu_hours": (budget.max_gpu_hours, gpu_hours["expected"] if gpu_hours else None),
        "deadline_s": (
            None if stops_at is None else round((stops_at - now).total_seconds(), 3),
            forecast["run_s"]["expected"] if forecast else None,
        ),
    }
    return {
        name: {"limit": limit, "expected": expected, "fits": None if expected is None else expected <= limit}
        for name, (limit, expected) in limits.items()
        if limit is not None
    }
