"""Runs whose store fails, goes away, or is full."""

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from pipeline.storage import join_uri, open_store
from tests.command import COMMAND, assert_one_clear_line, labelmill, write_job
from tests.faults.disturbed import assert_same_dataset, tables_of
from tests.faulty_s3 import faulty_s3
from tests.pipeline.outputs import files_below

pytestmark = pytest.mark.faults

NUM_IMAGES = 60
RECIPES = [
    {"name": "ocr", "max_new_tokens": 6},
    {"name": "qa", "questions": ["How many?", "Why?"], "max_new_tokens": 4},
]


def draw_images(folder: Path, num_images: int = NUM_IMAGES) -> list[Path]:
    folder.mkdir()
    for index in range(num_images):
        Image.new("RGB", (120 + index, 90), (index, 60, 60)).save(folder / f"{index:03d}.png")
    return sorted(folder.iterdir())


def upload(bucket: str, folder: Path, num_images: int = NUM_IMAGES) -> str:
    uri = f"{bucket}/in"
    for path in draw_images(folder, num_images):
        open_store(uri).put(join_uri(uri, path.name), path.read_bytes())
    return uri


@pytest.fixture
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LABELMILL_STORE_PATIENCE_S", "120")


def test_five_percent_of_faults_end_with_every_row_labelled(tmp_path, bucket, monkeypatch, patience):
    num_images, recipes = 240, [{"name": "ocr", "max_new_tokens": 4}]  # so many that rare faults are many
    source, backend_url = upload(bucket, tmp_path / "in", num_images), os.environ["AWS_ENDPOINT_URL"]
    with faulty_s3(backend_url, seed=5, rate=0.05) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        done = labelmill("run", write_job(tmp_path, source=source, output=f"{bucket}/out", recipes=recipes), "--json")
        assert done.code == 0, done.stderr
        assert proxy.injected.total() >= 10
        assert len(proxy.injected) >= 5, "of several kinds"
    monkeypatch.setenv("AWS_ENDPOINT_URL", backend_url)
    assert done.summary["num_rows"] == {"ocr": num_images, "quarantine": 0}
    calm = labelmill("run", write_job(tmp_path, source=source, output=f"{bucket}/calm", recipes=recipes))
    assert calm.code == 0, calm.stderr
    assert_same_dataset(f"{bucket}/out", f"{bucket}/calm")


def test_store_that_is_away_for_a_while_is_waited_for(tmp_path, bucket, monkeypatch, patience):
    source, backend_url = upload(bucket, tmp_path / "in"), os.environ["AWS_ENDPOINT_URL"]
    with faulty_s3(backend_url) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        job = write_job(tmp_path, source=source, output=f"{bucket}/out", recipes=RECIPES)
        process = subprocess.Popen([COMMAND, "run", job], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
        for path in ("in_hand", "commits"):  # once when labeling begins, once when the first labels are there
            wait_until(
                lambda path=path: any(name.startswith(path) for name in files_below(f"{bucket}/out/_run")), process
            )
            proxy.go_down()
            time.sleep(8)
            proxy.come_back()
        _, stderr = process.communicate(timeout=300)
        assert process.returncode == 0, stderr
        assert proxy.num_refused > 3
    monkeypatch.setenv("AWS_ENDPOINT_URL", backend_url)
    assert {table: len(rows) for table, rows in tables_of(f"{bucket}/out").items()} == {
        "ocr": NUM_IMAGES,
        "qa": 2 * NUM_IMAGES,
        "quarantine": 0,
    }


def wait_until(condition, process: "subprocess.Popen[str]") -> None:
    while not condition():
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 400 kB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = shutil.which("mount")
    if not mount or subprocess.run([mount, "-t", "tmpfs", "-o", "size=400k", "tmpfs", disk], check=False).returncode:
        pytest.skip("mounting a small disk needs root")
    try:
        yield disk
    finally:
        subprocess.run(["umount", disk], check=True)


def test_full_disk_ends_the_run_with_one_line_and_a_rerun_with_space_goes_on(tmp_path, small_disk):
    draw_images(tmp_path / "in")
    job = write_job(tmp_path, source=str(tmp_path / "in"), output=str(small_disk / "out"), recipes=RECIPES)
    (small_disk / "filler").write_bytes(bytes(320_000))
    full = labelmill("run", job)
    assert_one_clear_line(full, "the disk is full")
    (small_disk / "filler").unlink()
    done = labelmill("run", job, "--json")
    assert done.code == 0, done.stderr
    assert done.summary["num_rows"]["qa"] == 2 * NUM_IMAGES
    assert labelmill("verify", small_disk / "out").code == 0
