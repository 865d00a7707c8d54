"""`labelmill submit` against a real Ray head: what is sent, what is told, and by which exit code its end is known."""

import contextlib
import http.server
import json
import os
import signal
import subprocess
import threading
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest
from ray.job_submission import JobStatus

from jobs import ray_jobs
from jobs.ray_jobs import Ended, LostError, connect, follow, send
from jobs.working_directory import pack
from tests.command import COMMAND, Finished, assert_one_clear_line, labelmill, labelmill_here, write_job
from tests.pipeline.pictures import encode, four_corners
from tests.ray_head import Way, free_ports, ray_head

pytestmark = pytest.mark.e2e

RECIPES = [{"name": "ocr", "max_new_tokens": 4}]


@pytest.fixture(scope="module", autouse=True)
def _no_tokens() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("RAY_AUTH_MODE", "disabled")
        patch.delenv("RAY_ADDRESS", raising=False)
        yield


@pytest.fixture(scope="module")
def head(_no_tokens: None) -> Iterator[str]:
    with ray_head() as url:
        yield url


def folder_of_images(folder: Path, number: int) -> Path:
    folder.mkdir()
    for index in range(number):
        (folder / f"{index}.png").write_bytes(encode(four_corners(40 + index % 7, 40), "PNG"))
    return folder


def begin(url: str, id: str, entrypoint: str, tmp_path: Path, **env: str) -> None:
    pack(tmp_path, [], tmp_path / "empty.zip")
    send(connect(url), id=id, entrypoint=entrypoint, archive=tmp_path / "empty.zip", env=env)


def wait_until(status: JobStatus, url: str, id: str) -> None:
    client, give_up_at = connect(url), time.monotonic() + 60
    while client.get_job_status(id) != status:
        assert time.monotonic() < give_up_at, client.get_job_info(id)
        time.sleep(0.1)


@contextlib.contextmanager
def answering(status: int) -> Iterator[str]:
    """A web server that is no Ray."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(status)
            self.send_header("Content-Length", "5")
            self.end_headers()
            self.wfile.write(b"hello")

        def log_message(self, *arguments: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()


def test_job_in_a_clean_folder_runs_on_the_cluster_and_its_dataset_is_there(head: str, tmp_path: Path):
    images, clean = folder_of_images(tmp_path / "in", 2), tmp_path / "clean"
    clean.mkdir()
    job = write_job(clean, source=str(images), output=str(tmp_path / "out"), recipes=RECIPES)
    done = labelmill("submit", job.name, "--address", head, "--set", "recipes.ocr.seed=3", cwd=clean)
    assert done.code == 0, done
    assert "rows: ocr 2, quarantine 0" in done.stdout
    assert json.loads((tmp_path / "out" / "_run" / "summary.json").read_text())["num_images"] == 2
    assert [path.name for path in clean.iterdir()] == ["job.yaml"]


def test_job_that_fails_on_the_cluster_ends_with_its_exit_code_and_its_line(head: str, tmp_path: Path):
    job = write_job(tmp_path, source=str(tmp_path / "nothing"), output=str(tmp_path / "out"), recipes=RECIPES)
    done = labelmill("submit", job, "--address", head)
    assert done.code == 1
    assert f"labelmill: {tmp_path / 'nothing'}" in done.stdout
    assert done.stderr.splitlines() == done.complaints, "Ray's own lines are of no use here"
    assert len(done.complaints) == 1, "only that the job is sent: why it failed, its own log has told"


def test_interrupt_leaves_the_job_running_and_a_stop_ends_it_as_interrupted(head: str, tmp_path: Path):
    images = folder_of_images(tmp_path / "in", 1600)
    questions = [f"How many shapes are there? {index}" for index in range(6)]  # so many that there is time to stop
    recipes = [{"name": "qa", "questions": questions, "max_new_tokens": 8}]
    job = write_job(tmp_path, source=str(images), output=str(tmp_path / "out"), recipes=recipes)
    command = [str(COMMAND), "submit", str(job), "--address", head]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as submit:
        assert submit.stdout is not None
        assert any(line.startswith("labeling: ") for line in submit.stdout), "the log is not followed"
        submit.send_signal(signal.SIGINT)
        stdout, stderr = submit.communicate(timeout=120)
    told = Finished(submit.returncode, stdout, stderr)
    assert told.code == 130
    id = told.complaints[0].split()[2]
    assert told.complaints[1] == (
        f"labelmill: the job goes on; follow it with: ray job logs --follow --address {head} {id}; "
        f"stop it with: ray job stop --address {head} {id}"
    )
    client = connect(head)
    assert client.get_job_status(id) == JobStatus.RUNNING
    client.stop_job(id)
    shown: list[str] = []
    ended = follow(client, id, show=shown.append, say=shown.append)
    assert ended.exit_code == 130
    assert "interrupted; what was committed is kept" in "".join(shown), "it was killed before it could end what it had"


def test_how_a_job_ended_is_told_by_the_exit_code_of_its_command(head: str, tmp_path: Path):
    entrypoints = {
        "usage": ("exec labelmill run no-such-file.yaml", 2, ""),
        "quarantined": ("exit 3", 3, ""),
        "killed": ("kill -9 $$", 1, "ended by signal 9"),
        "not installed": ("exec no-such-command", 1, "not installed"),
    }
    for name, (entrypoint, _, _) in entrypoints.items():
        begin(head, name.replace(" ", "-"), entrypoint, tmp_path)
    for name, (_, code, why) in entrypoints.items():
        ended = follow(connect(head), name.replace(" ", "-"), show=print, say=print)
        assert (ended.exit_code, bool(ended.why)) == (code, bool(why)), name
        assert why in ended.why


def test_connection_that_is_lost_is_made_again_and_nothing_is_shown_twice(head: str, tmp_path: Path):
    way, go_on = Way(head), tmp_path / "go-on"
    begin(way.url, "lost", f"echo one; echo two; until [ -e {go_on} ]; do sleep 0.1; done; echo three", tmp_path)
    shown: list[str] = []
    said: list[str] = []

    def show(text: str) -> None:
        shown.append(text)
        if "two" in text:
            way.cut()

    def say(text: str) -> None:
        said.append(text)
        go_on.touch()
        wait_until(JobStatus.SUCCEEDED, head, "lost")  # while nobody listens
        way.mend()

    ended = follow(connect(way.url), "lost", show=show, say=say)
    way.cut()
    assert ended == Ended(exit_code=0)
    lines = "".join(shown).splitlines()
    assert [line for line in lines if line in ("one", "two", "three")] == ["one", "two", "three"]
    assert len(said) == 1
    assert said[0].startswith("the connection is lost, the job goes on")


def test_log_is_shown_where_no_web_socket_passes(head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    async def refused(id: str) -> AsyncIterator[str]:
        raise aiohttp.ClientConnectionError("a proxy that knows no web sockets")
        yield id

    client = connect(head)
    monkeypatch.setattr(client, "tail_job_logs", refused)
    begin(head, "no-socket", "echo one; sleep 3; echo two", tmp_path)
    shown: list[str] = []
    said: list[str] = []
    assert follow(client, "no-socket", show=shown.append, say=said.append) == Ended(exit_code=0)
    assert [line for line in "".join(shown).splitlines() if line in ("one", "two")] == ["one", "two"]
    assert said == []


def test_cluster_that_does_not_come_back_is_told_with_how_long_it_has_been_silent(head, tmp_path, monkeypatch):
    monkeypatch.setattr(ray_jobs, "SILENCE_S", 1.0)
    way = Way(head)
    begin(way.url, "gone", "sleep 60", tmp_path)
    client = connect(way.url)
    way.cut()
    with pytest.raises(LostError, match=r"has not answered for \d+ s"):
        follow(client, "gone", show=print, say=print)
    connect(head).stop_job("gone")


def test_job_that_the_cluster_does_not_know_is_told(head: str):
    with pytest.raises(RuntimeError, match="knows no job no-such-job any more"):
        follow(connect(head), "no-such-job", show=print, say=print)


def test_address_that_is_given_counts_and_not_one_of_the_environment(head: str, tmp_path: Path, monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "127.0.0.1:1")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "http://127.0.0.1:1")
    assert connect(head).get_address() == head
    assert os.environ["RAY_ADDRESS"] == "127.0.0.1:1"


@pytest.mark.parametrize("status", [200, 401, 403, 500])
def test_what_answers_and_is_no_ray_that_lets_us_in_is_told_in_one_line(tmp_path: Path, status: int):
    job = write_job(tmp_path, source="s3://b/in", output="s3://b/out", recipes=RECIPES)
    with answering(status) as url:
        told = "RAY_AUTH_TOKEN" if status in (401, 403) else "no Ray cluster answers"
        assert_one_clear_line(labelmill_here("submit", job, "--address", url), url, told)


def test_job_is_sent_and_not_waited_for(head: str, tmp_path: Path):
    job = write_job(tmp_path, source=str(tmp_path / "nothing"), output=str(tmp_path / "out"), recipes=RECIPES)
    done = labelmill_here("submit", job, "--address", head, "--no-wait")
    assert done.code == 0
    assert "ray job logs --follow" in done.complaints[-1]
    assert "ray job stop" in done.complaints[-1]


def test_address_where_nothing_listens_is_told_in_one_line(tmp_path: Path):
    url = f"http://127.0.0.1:{free_ports(1)[0]}"
    job = write_job(tmp_path, source="s3://b/in", output="s3://b/out", recipes=RECIPES)
    assert_one_clear_line(labelmill_here("submit", job, "--address", url), url, "no Ray cluster answers")


@pytest.mark.parametrize(
    ("values", "options", "code", "fragments"),
    [
        ({}, ["--address", "127.0.0.1:6379"], 1, ["--address", "http://HOST:8265"]),
        ({}, [], 2, ["--address"]),
        ({"recipes": ["capshun"]}, [], 2, ["recipes.0", "caption"]),
        ({"source": "photos"}, [], 1, ["source.uri is photos", "s3://"]),
        ({"checkpoint": "./weights"}, [], 1, ["checkpoint is ./weights"]),
        ({"output": "labels"}, [], 1, ["output is labels", "every machine"]),
    ],
    ids=["address of another kind", "no address", "typo", "source", "checkpoint", "output"],
)
def test_mistakes_are_told_before_anything_is_sent(tmp_path, values, options, code, fragments, monkeypatch):
    monkeypatch.delenv("RAY_API_SERVER_ADDRESS", raising=False)
    job = write_job(tmp_path, **{"source": "s3://b/in", "output": "s3://b/out", "recipes": RECIPES, **values})
    if not options and values:
        options = ["--address", "http://127.0.0.1:1"]
    done = labelmill_here("submit", job, *options)
    assert_one_clear_line(done, *fragments, code=code)


def test_job_file_that_is_not_there_is_told_by_its_path(tmp_path: Path):
    missing = tmp_path / "nowhere" / "job.yaml"
    done = labelmill_here("submit", missing, "--address", "http://127.0.0.1:1")
    assert_one_clear_line(done, str(missing), code=2)
