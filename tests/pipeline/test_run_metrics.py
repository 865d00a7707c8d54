"""Images of a run that are pending, as its driver tells them while shards are still being counted."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import pytest

from pipeline import run_metrics as run_metrics_module
from pipeline.receipt import COUNTS
from pipeline.run_metrics import RunMetrics, run_metrics
from pipeline.run_progress import RunProgress, counting
from pipeline.storage import StorageError
from schemas.errors import ErrorKind
from tests.pipeline import counting as counting_fakes
from tests.pipeline.outputs import commit, job_of, labelled, pending, put_images, resolve


@pytest.fixture
def told(monkeypatch):
    return counting_fakes.counting(monkeypatch, run_metrics_module)


@dataclass(frozen=True, kw_only=True)
class Labeling:
    """What the driver of a run holds while its pipeline goes on."""

    progress: RunProgress
    metrics: RunMetrics
    counter: threading.Thread

    def commit(self, num_images: int, num_quarantined_images: int = 0) -> None:
        counts = {"num_images": num_images, "num_quarantined_images": num_quarantined_images}
        receipt = {**dict.fromkeys(COUNTS, 0), **counts}
        self.progress.add({**receipt, "labels_by_recipe": "{}", "quarantined_by_kind": "{}", "engine": "{}"})
        self.metrics.committed(receipt)


@contextmanager
def labeling(shards: list[str], num_images_of: Callable[[str], int]) -> Iterator[Labeling]:
    progress = RunProgress(12)
    with (
        run_metrics("photos", progress) as metrics,
        counting(progress, shards, num_images_of, on_count=metrics.tell_pending) as counter,
    ):
        yield Labeling(progress=progress, metrics=metrics, counter=counter)


def test_pending_images_are_those_of_the_shards_less_those_committed(told):
    with labeling(["a", "b"], {"a": 5, "b": 7}.__getitem__) as run:
        assert told.jobs == ["photos"]
        run.counter.join()
        run.commit(4, num_quarantined_images=1)
        assert told.gauges["pending_images"] == run.progress.now().num_pending_images == 8
    assert told.sums == {("images", "labelled"): 3, ("images", "quarantined"): 1}
    assert told.jobs == [], "nothing is counted after the run"


def test_every_shard_is_counted_once(told):
    counted: list[str] = []

    def num_images_of(shard: str) -> int:
        counted.append(shard)
        return 5

    with labeling(["a", "b"], num_images_of) as run:
        run.counter.join()
    assert counted == ["a", "b"]


def test_shards_that_are_not_counted_yet_are_not_waited_for(told):
    may_go_on = threading.Event()

    def slowly(shard: str) -> int:
        may_go_on.wait()
        return 5

    with labeling(["a"], slowly) as run:
        run.commit(2)
        assert told.gauges["pending_images"] == 0, "and never fewer than none"
        assert run.progress.now().num_pending_images is None
        may_go_on.set()
        run.counter.join()
        assert told.gauges["pending_images"] == run.progress.now().num_pending_images == 3


def test_counting_that_outlives_its_run_says_nothing(told, caplog):
    may_go_on = threading.Event()

    def fails_late(shard: str) -> int:
        may_go_on.wait()
        raise StorageError(ErrorKind.MISSING, "its commits have been put together")

    with labeling(["a"], fails_late) as run:
        pass
    may_go_on.set()
    run.counter.join()
    assert (caplog.text, told.gauges.keys()) == ("", {"run_start_timestamp_seconds"})


def test_shard_that_cannot_be_read_ends_the_counting_and_not_the_run(told, caplog):
    def fails(shard: str) -> int:
        raise StorageError(ErrorKind.STORE_UNAVAILABLE, "s3://bucket/x: no answer")

    with labeling(["a"], fails) as run:
        run.counter.join()
        run.commit(2)
    assert "s3://bucket/x: no answer" in caplog.text
    assert run.progress.now().num_pending_images is None
    assert told.of("images") == {("labelled",): 2, ("quarantined",): 0}


def test_images_of_a_run_are_the_same_whatever_it_has_done_already(tmp_path):
    source = put_images(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg")
    job = job_of(source, tmp_path / "out")
    first = resolve(job, limit=1)
    commit(first, *(labelled(first, row) for row in pending(first)))
    second = resolve(job, run=2)

    def num_images() -> int:
        return sum(second.folder.num_images_of_run(shard, second.wanted) for shard in second.shards)

    assert num_images() == 2
    row = pending(second)[0]
    commit(second, labelled(second, row))
    assert num_images() == 2
    assert len(pending(second)) == 1
