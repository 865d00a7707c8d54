"""Images of a run that are pending, as its driver tells them while shards are still being counted."""

import threading

import pytest

from pipeline import run_metrics as run_metrics_module
from pipeline.run_metrics import run_metrics
from pipeline.storage import StorageError
from schemas.errors import ErrorKind
from tests.pipeline.counting import counting
from tests.pipeline.outputs import commit, job_of, labelled, pending, put_images, resolve


@pytest.fixture
def told(monkeypatch):
    return counting(monkeypatch, run_metrics_module)


def receipt(num_images: int, num_quarantined_images: int = 0) -> dict[str, int]:
    return {"num_images": num_images, "num_quarantined_images": num_quarantined_images, "num_labels": 0}


def test_pending_images_are_those_of_the_shards_less_those_committed(told):
    with run_metrics("photos", ["a", "b"], num_images_of={"a": 5, "b": 7}.__getitem__) as metrics:
        assert told.jobs == ["photos"]
        metrics._thread.join()
        metrics.committed(receipt(4, num_quarantined_images=1))
        assert told.gauges["pending_images"] == metrics.num_pending == 8
    assert told.sums == {("images", "labelled"): 3, ("images", "quarantined"): 1}
    assert told.jobs == [], "nothing is counted after the run"


def test_shards_that_are_not_counted_yet_are_not_waited_for(told):
    may_go_on = threading.Event()

    def slowly(shard: str) -> int:
        may_go_on.wait()
        return 5

    with run_metrics("photos", ["a"], num_images_of=slowly) as metrics:
        metrics.committed(receipt(2))
        assert told.gauges["pending_images"] == 0, "and never fewer than none"
        may_go_on.set()
        metrics._thread.join()
        assert told.gauges["pending_images"] == 3


def test_counting_that_outlives_its_run_says_nothing(told, caplog):
    may_go_on = threading.Event()

    def fails_late(shard: str) -> int:
        may_go_on.wait()
        raise StorageError(ErrorKind.MISSING, "its commits have been put together")

    with run_metrics("photos", ["a"], num_images_of=fails_late) as metrics:
        pass
    may_go_on.set()
    metrics._thread.join()
    assert (caplog.text, told.gauges.keys()) == ("", {"run_start_timestamp_seconds"})


def test_shard_that_cannot_be_read_ends_the_counting_and_not_the_run(told, caplog):
    def fails(shard: str) -> int:
        raise StorageError(ErrorKind.STORE_UNAVAILABLE, "s3://bucket/x: no answer")

    with run_metrics("photos", ["a"], num_images_of=fails) as metrics:
        metrics._thread.join()
        metrics.committed(receipt(2))
    assert "s3://bucket/x: no answer" in caplog.text
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
