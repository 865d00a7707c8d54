"""When a run stops because of its budget, and which images it takes up, without a cluster."""

import threading
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from pipeline.budget import Allotment, BudgetSpentError, Moment, allot, budget_facts, gpu_hours_spent, watch
from pipeline.lease import BUDGET_SPENT, hold_lease, read_lease
from schemas.budget import BudgetSpec
from tests.pipeline.outputs import commit, job_of, labelled, pending, put_images, resolve

PENDING = {"shard-0": 3, "shard-1": 0, "shard-2": 4, "shard-3": 5}
NOW = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)
PAST, FAR = NOW - timedelta(days=4000), NOW + timedelta(days=36500)


def of(max_images: int | None) -> tuple[Allotment, list[str]]:
    """With the shards that were counted for it."""
    counted: list[str] = []

    def num_pending_in(shard: str) -> int:
        counted.append(shard)
        return PENDING[shard]

    return allot(list(PENDING), max_images, num_pending_in=num_pending_in), counted


@pytest.mark.parametrize(
    ("max_images", "shards", "last", "num_images", "leaves_some"),
    [
        (2, ("shard-0",), 2, 2, True),
        (3, ("shard-0",), None, 3, True),
        (4, ("shard-0", "shard-2"), 1, 4, True),
        (7, ("shard-0", "shard-2"), None, 7, True),
        (12, ("shard-0", "shard-2", "shard-3"), None, 12, False),
        (100, ("shard-0", "shard-2", "shard-3"), None, 12, False),
    ],
)
def test_run_takes_up_as_many_images_as_its_budget_allows(max_images, shards, last, num_images, leaves_some):
    allotment, _ = of(max_images)
    assert allotment == Allotment(shards=shards, last_shard_images=last, num_images=num_images, leaves_some=leaves_some)


def test_no_more_shards_are_counted_than_the_budget_needs():
    assert of(2)[1] == ["shard-0"]
    assert of(None) == (Allotment(shards=tuple(PENDING)), [])


@pytest.mark.parametrize(("max_gpu_hours", "num_gpus", "hours"), [(8, 4, 2), (0.5, 1, 0.5), (1e300, 1, None)])
def test_gpu_hours_are_hours_times_gpus(max_gpu_hours, num_gpus, hours):
    moment = gpu_hours_spent(BudgetSpec(max_gpu_hours=max_gpu_hours), NOW, num_gpus)
    assert moment.budget == f"budget.max_gpu_hours ({max_gpu_hours:g})"
    assert moment.at == NOW + timedelta(hours=hours) if hours else moment.at > FAR


def test_without_gpus_no_gpu_hours_are_spent():
    assert gpu_hours_spent(BudgetSpec(max_gpu_hours=1), NOW, 0) is None


def test_first_moment_that_comes_asks_the_run_to_stop():
    requested = threading.Event()
    with watch([Moment(FAR, "gpus"), None, Moment(PAST, "deadline")], requested) as watched:
        assert requested.wait(60)
        assert watched.spent == "deadline"


def test_run_that_is_stopping_already_is_not_stopped_by_its_budget():
    requested = threading.Event()
    requested.set()
    with watch([Moment(PAST, "deadline")], requested) as watched:
        pass
    assert watched.spent == ""


def test_moment_that_has_not_come_leaves_the_run_and_no_thread():
    requested, before = threading.Event(), threading.active_count()
    with watch([Moment(FAR, "deadline")], requested) as watched:
        assert threading.active_count() == before + 1
    assert (watched.spent, requested.is_set(), threading.active_count()) == ("", False, before)


def test_images_beyond_the_limit_are_not_listed_however_often_the_shard_is_listed(tmp_path):
    """A worker that dies has its shard listed again, when some of the images have been labelled."""
    names = [f"{number}.jpg" for number in range(5)]
    work = resolve(job_of(put_images(tmp_path / "photos", *names), tmp_path / "out"), run=1)
    wanted = replace(work.wanted, max_images_of={work.shards[0]: 3})
    work = replace(work, wanted=wanted)
    first = pending(work)
    assert [row.image_uri.rpartition("/")[2] for row in first] == names[:3]

    commit(work, labelled(work, first[0]))
    assert [row.sample_id for row in pending(work)] == [row.sample_id for row in first[1:]]
    assert work.folder.num_pending(work.shards[0], work.wanted) == 4


def test_lease_of_a_run_whose_budget_is_spent_says_so(tmp_path):
    lease_uri = str(tmp_path / "lease")
    with pytest.raises(BudgetSpentError), hold_lease(lease_uri):
        raise BudgetSpentError("budget.max_images (4) is spent", {})
    record = read_lease(lease_uri)
    assert (record.state, record.message) == (BUDGET_SPENT, "budget.max_images (4) is spent")


def test_plan_tells_what_of_the_budget_is_not_enough():
    forecast = {"gpu_hours": {"expected": 3.0}, "run_s": {"expected": 5400.0}}
    budget = BudgetSpec(max_images=10, max_gpu_hours=4, deadline="1h")
    assert budget_facts(budget, 12, forecast, NOW) == {
        "max_images": {"limit": 10, "expected": 12, "fits": False},
        "max_gpu_hours": {"limit": 4, "expected": 3.0, "fits": True},
        "deadline_s": {"limit": 3600, "expected": 5400.0, "fits": False},
    }
    assert budget_facts(BudgetSpec(deadline="1h"), 12, None, NOW)["deadline_s"]["fits"] is None
    assert budget_facts(BudgetSpec(), 12, forecast, NOW) == {}
