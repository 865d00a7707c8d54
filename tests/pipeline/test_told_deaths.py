"""Who asks what became of a run is told which label actors died: of one that goes on, has failed, or is done."""

import contextlib
import json
from collections.abc import Iterator

import pytest

from jobs.status import print_status
from pipeline import cluster
from pipeline.lease import hold_lease
from pipeline.ledger import RunFolder
from pipeline.report.page import write_report
from pipeline.run import run_job
from pipeline.status import status
from pipeline.storage import canonical_uri
from pipeline.worker_deaths import UNTOLD, Actor, WorkerDeaths
from tests.pipeline.outputs import job_of, put_images, resolve

REASON = "rank 1 was ended by signal 9"
TOLD = f"2 label actors died: {REASON} (1); {UNTOLD} (1)"


@pytest.fixture(params=["local", "s3"])
def output(request, tmp_path) -> str:
    return request.getfixturevalue("bucket") + "/out" if request.param == "s3" else str(tmp_path / "out")


def two_die(output: str, *, run: int) -> None:
    """One that tells why, and one that was killed."""
    uri = RunFolder(canonical_uri(output)).in_hand_uri
    WorkerDeaths(uri, run, this_actor=lambda: Actor(name="a", is_successor=False)).end_because_of(REASON)
    for name in "ab":
        WorkerDeaths(uri, run, this_actor=lambda name=name: Actor(name=name, is_successor=True)).start()


def test_run_that_goes_on_has_the_deaths_so_far(tmp_path, output, capsys):
    work = resolve(job_of(put_images(tmp_path / "photos", "a.jpg"), output))
    with hold_lease(work.folder.lease_uri):
        assert status(output).label_actor_deaths == {}
        two_die(output, run=1)
        print_status(output, as_json=True)
    shown = capsys.readouterr().out
    assert f"in run 1, {TOLD}" in shown
    assert json.loads(shown.splitlines()[-1])["label_actor_deaths"] == {REASON: 1, UNTOLD: 1}


def test_run_that_fails_tells_them_in_its_error_and_afterwards(tmp_path, output, monkeypatch):
    @contextlib.contextmanager
    def failing() -> Iterator[None]:
        two_die(output, run=1)
        raise cluster.RunFailedError("The actor died.")
        yield

    monkeypatch.setattr(cluster, "cluster", failing)
    with pytest.raises(cluster.RunFailedError) as caught:
        run_job(job_of(put_images(tmp_path / "photos", "a.jpg"), output))
    assert str(caught.value) == f"The actor died.; before that, {TOLD}"
    found = status(output)
    assert (found.state, found.run["message"]) == ("failed", str(caught.value))
    assert found.label_actor_deaths == {REASON: 1, UNTOLD: 1}


def test_run_that_is_done_has_those_of_its_summary_and_not_of_the_one_before(tmp_path, output):
    work = resolve(job_of(put_images(tmp_path / "photos", "a.jpg"), output))
    two_die(output, run=1)
    for deaths in ({REASON: 3}, {}):
        with hold_lease(work.folder.lease_uri) as lease:
            this_run = {"number": lease.number, "label_actor_deaths": deaths}
            counts = {"num_images": 1, "num_rows": {}, "num_quarantined_images": 0}
            work.folder.put_json("summary.json", counts | {"times": {"finished_at": "now"}, "this_run": this_run})
        assert status(output).label_actor_deaths == deaths


def test_report_of_a_run_tells_them(tmp_path, output):
    work = resolve(job_of(put_images(tmp_path / "photos", "a.jpg"), output))
    with hold_lease(work.folder.lease_uri):
        two_die(output, run=1)
        write_report(output, out=canonical_uri(str(tmp_path / "page.html")))
    assert f"In run 1, {TOLD}." in (tmp_path / "page.html").read_text()
