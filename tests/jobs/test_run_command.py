"""The installed command as a user runs it: S3 to S3, a second run, Ctrl-C, quarantine, the demo."""

import io
import json
import os
import re
import signal
import subprocess
import time
from pathlib import Path

import datasets
import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.status import status
from pipeline.storage import join_uri, open_store
from tests import golden, swift
from tests.command import COMMAND, labelmill, write_job

PICTURES = sorted((golden.FOLDER / "images").glob("*.png"))


def put_pictures(uri: str, *, num_pictures: int = 6, num_broken: int = 1) -> None:
    store = open_store(uri)
    for index, picture in enumerate(PICTURES[:num_pictures]):
        store.put(join_uri(uri, f"{index % 2}/{picture.name}"), picture.read_bytes())
    for index in range(num_broken):
        store.put(join_uri(uri, f"broken-{index}.jpg"), b"not an image")


def read_table(output: str, table: str):
    store, folder = open_store(output), join_uri(output, table)
    parts = [store.get(info.uri) for info in store.list(folder)]
    return [row for part in parts for row in pq.read_table(io.BytesIO(part)).to_pylist()]


def assert_complete(output: str, summary: dict, *, num_labelled: int, num_quarantined: int) -> None:
    assert summary["num_images"] == num_labelled + num_quarantined
    for counts in summary["recipes"].values():
        assert (counts["labelled"], counts["quarantined"], counts["skipped"]) == (num_labelled, num_quarantined, 0)
    assert {table: len(read_table(output, table)) for table in summary["num_rows"]} == summary["num_rows"]
    assert summary["num_rows"] == {
        "captions": num_labelled,
        "ocr": num_labelled,
        "qa": 2 * num_labelled,
        "grounding": num_labelled,
        "quarantine": 4 * num_quarantined,
    }


def job_on_store(tmp_path: Path, bucket: str) -> tuple[Path, str]:
    """Six pictures and a broken file, from a prefix of the bucket to another."""
    put_pictures(f"{bucket}/in")
    output = f"{bucket}/out/dataset"
    limits = {"max_quarantined_fraction": 0.5}
    return write_job(tmp_path, source=f"{bucket}/in/", output=output, limits=limits), output


def assert_verifies(output: str) -> None:
    verified = labelmill("verify", output)
    assert verified.code == 0, verified.stdout
    assert verified.stdout.splitlines()[-1] == "every image is accounted for exactly once per recipe"


def test_job_from_s3_to_s3_is_complete_verifies_and_is_not_repeated(tmp_path: Path, bucket: str):
    job, output = job_on_store(tmp_path, bucket)
    first = labelmill("run", job, "--limit", 100, "--json")
    assert first.code == 0, first.stderr
    assert_complete(output, first.summary, num_labelled=6, num_quarantined=1)
    assert {row["error_kind"] for row in read_table(output, "quarantine")} == {"unreadable"}
    assert_verifies(output)

    again = labelmill("run", job, "--json")
    assert (again.code, again.summary["this_run"]["num_images"]) == (0, 0), again.stderr
    assert again.summary["num_rows"] == first.summary["num_rows"]


@pytest.mark.swift
@pytest.mark.skipif(swift.reason_to_skip() is not None, reason=str(swift.reason_to_skip()))
def test_same_job_passes_on_a_store_that_is_not_moto(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    with swift.swift_store(tmp_path / "swift", monkeypatch) as bucket:
        job, output = job_on_store(tmp_path, bucket)
        done = labelmill("run", job, "--json")
        assert done.code == 0, done.stderr
        assert_complete(output, done.summary, num_labelled=6, num_quarantined=1)
        assert "this store has no conditional puts" in done.stderr
        assert_verifies(output)


@pytest.mark.e2e
def test_interrupted_run_goes_on_when_run_again_and_reports_too_much_in_quarantine(tmp_path: Path):
    """Ctrl-C, after which what is under way is committed; two SIGTERMs, after which it is not; then a run to the end.
    It has more broken files than the job allows."""
    source, output = tmp_path / "in", tmp_path / "out"
    source.mkdir()
    for index in range(120):
        Image.new("RGB", (300 + index, 200), (index * 2, 0, 0)).save(source / f"{index:03d}.png")
    for index in range(8):
        (source / f"broken-{index}.png").write_bytes(b"not an image")
    questions = [f"How many shapes are there? {index}" for index in range(3)]  # so many that there is time to stop
    recipes = [{"name": "qa", "questions": questions, "max_new_tokens": 8}]
    job = write_job(tmp_path, source=str(source), output=str(output), recipes=recipes)

    for signals in ([signal.SIGINT], [signal.SIGTERM, signal.SIGTERM]):
        commits_before = num_commits(output)
        process = subprocess.Popen([COMMAND, "run", job], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        wait_for_another_commit(output, commits_before, process)
        assert status(str(output)).state == "running"
        for sent in signals:
            process.send_signal(sent)
            time.sleep(0.2)  # two signals at the same moment are one
        _, stderr = process.communicate(timeout=60)
        assert process.returncode == 130, stderr
        assert "run the same command again" in stderr.splitlines()[-1]
        assert "stopping: ending what is under way" in stderr
        assert "Traceback" not in stderr
        assert not (output / "qa").exists()
        assert status(str(output)).state == "interrupted"

    finished = labelmill("run", job, "--json")
    assert finished.code == 3, finished.stderr
    assert 0 < finished.summary["this_run"]["num_images"] < 128
    assert len({row["sample_id"] for row in read_table(str(output), "qa")}) == 120
    assert finished.summary["num_quarantined_images"] == 8
    assert_verifies(str(output))

    retried = labelmill("retry", output, "--kind", "unreadable", "--json")
    assert retried.code == 3, retried.stderr
    assert retried.summary["this_run"]["num_images"] == 8
    assert [row["attempts"] for row in read_table(str(output), "quarantine")] == [2] * 8
    assert_verifies(str(output))


@pytest.mark.e2e
def test_run_with_a_budget_stops_is_watched_from_elsewhere_and_is_finished_by_the_next_one(tmp_path: Path):
    """Four of six images, then the rest."""
    put_pictures(str(tmp_path / "in"), num_broken=0)
    output, recipes = tmp_path / "out", [{"name": "ocr", "max_new_tokens": 4}]
    values = {"source": str(tmp_path / "in"), "output": str(output), "recipes": recipes}
    job = write_job(tmp_path, **values, budget={"max_images": 4})

    with subprocess.Popen(
        [COMMAND, "run", job, "--json"], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        wait_for_lease(output, process)
        watched = labelmill("status", output, "--watch", "--json")
        stdout, stderr = process.communicate(timeout=120)
    assert (process.returncode, watched.code) == (4, 4), (stderr, watched)
    assert stderr.splitlines()[-1].startswith(
        "labelmill: budget.max_images (4) is spent: this run has labelled 4 images"
    )
    stopped = json.loads(stdout.splitlines()[-1])
    assert (stopped["this_run"]["num_images"], stopped["num_pending_images"]) == (4, 2)
    assert watched.summary["state"] == "budget_spent"
    assert watched.summary["run"]["message"] in stderr
    assert watched.stderr.strip(), "it found the run running"
    told = watched.summary["run"]["progress"]
    assert {key: told[key] for key in ("num_images_done", "num_pending_images", "labels_by_recipe")} == {
        "num_images_done": 4,
        "num_pending_images": 0,
        "labels_by_recipe": {"ocr": 4},
    }
    assert told["num_output_tokens"] == stopped["this_run"]["num_output_tokens"] > 0
    assert 0 < stopped["this_run"]["occupancy"] <= 1
    assert not (output / "ocr").exists()

    finished = labelmill("run", job, "--json")
    assert finished.code == 0, finished.stderr
    assert finished.summary["this_run"]["num_images"] == 2
    assert len({row["sample_id"] for row in read_table(str(output), "ocr")}) == 6
    assert finished.summary["num_rows"] == {"ocr": 6, "quarantine": 0}
    assert_verifies(str(output))


def wait_for_lease(output: Path, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while not list(output.glob("_run/lease/*.json")):
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "the run has not begun"
        time.sleep(0.1)


def num_commits(output: Path) -> int:
    return len(list(output.glob("_run/commits/*/*.json")))


def wait_for_another_commit(output: Path, commits_before: int, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + 120
    while num_commits(output) == commits_before:
        assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline, "nothing was committed"
        time.sleep(0.1)


def test_label_prints_what_a_run_writes(tmp_path: Path):
    image = PICTURES[0]
    done = labelmill("label", image, "--recipe", "ocr", "--set", "recipes.ocr.max_new_tokens=6", "--json")
    assert done.code == 0, done.stderr
    (label,) = done.summary["labels"]
    assert label["recipe"] == "ocr"
    assert label["num_output_tokens"] <= 6
    plain = labelmill("label", image, "--question", "How many?", "--set", "recipes.qa.max_new_tokens=4")
    assert "question: How many?" in plain.stdout


@pytest.mark.e2e
def test_demo_ends_with_a_dataset_that_opens(tmp_path: Path):
    """From drawn scenes through an S3 server on loopback; four files are broken on purpose."""
    done = labelmill("demo", "--json", cwd=tmp_path)
    assert done.code == 0, done.stderr
    out = tmp_path / "labelmill-demo"
    assert done.summary["output"] == str(out)
    assert done.summary["num_images"] == 28
    assert set(done.summary["quarantined_by_kind"]) == {"truncated", "empty", "unreadable", "too_many_pixels"}
    assert "images/s" in done.stdout
    true_captions = re.search(r"captions: (\d+) of 24 name every shape", done.stdout)
    assert true_captions
    assert int(true_captions[1]) > 12, "nano sees what is in scenes that it was not trained on"
    with Image.open(out / "labels.png") as sheet:
        assert sheet.width > 1000

    cache = str(tmp_path / "cache")
    for table, rows in done.summary["num_rows"].items():
        files = f"{out}/{table}/*.parquet"
        loaded = datasets.load_dataset("parquet", data_files=files, split="train", cache_dir=cache)
        assert loaded.num_rows == rows == pq.read_table(out / table).num_rows
    assert datasets.load_dataset(str(out), "grounding", split="train", cache_dir=cache).num_rows > 24

    (out / "my-notes.txt").write_text("kept only until the next demo")
    refused = labelmill("demo", "--out", tmp_path, cwd=tmp_path)
    assert refused.code == 1
    assert "choose another folder" in refused.complaints[0]
    assert os.listdir(tmp_path / "labelmill-demo")
