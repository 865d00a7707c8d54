"""Killed drivers and workers, at random moments: after reruns the dataset is that of an undisturbed run."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from pipeline.worker_deaths import UNTOLD
from tests.command import labelmill, write_job
from tests.faults.disturbed import DRIVER, NODE, WORKERS, Kills, assert_same_dataset, run_until_done

pytestmark = pytest.mark.faults

NUM_GOOD, NUM_BROKEN = 90, 6
QUESTIONS = [f"How many shapes are there? {index}" for index in range(6)]


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(NUM_GOOD):
        image = Image.new("RGB", (200 + 3 * index, 150), "white")
        ImageDraw.Draw(image).ellipse((20 + index, 30, 80 + index, 90), fill=("red", "blue", "green")[index % 3])
        image.save(folder / f"{index:03d}.png")
    for index in range(NUM_BROKEN):
        (folder / f"broken-{index}.png").write_bytes(b"not an image")
    return folder


def job_at(folder: Path, source: object, output: object) -> Path:
    folder.mkdir(exist_ok=True)
    recipes = [
        {"name": "ocr", "max_new_tokens": 12},
        {"name": "caption", "hints": ["ocr"], "max_new_tokens": 24},
        {"name": "qa", "questions": QUESTIONS, "max_new_tokens": 8},
    ]
    limits = {"max_quarantined_fraction": NUM_BROKEN / NUM_GOOD}
    return write_job(folder, source=str(source), output=str(output), recipes=recipes, limits=limits)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, source: Path) -> str:
    folder = tmp_path_factory.mktemp("undisturbed")
    done = labelmill("run", job_at(folder, source, folder / "out"))
    assert done.code == 0, done.stderr
    return str(folder / "out")


@pytest.mark.parametrize("seed", [1, 2])
def test_workers_and_drivers_killed_at_random_moments_cost_no_row(tmp_path, source, undisturbed, seed):
    kills = Kills(seed=seed, num_left=14)
    run_until_done(job_at(tmp_path, source, tmp_path / "out"), kills)
    while kills.num_left > 0:  # the job was done before all kills were used
        shutil.rmtree(tmp_path / "out")
        run_until_done(job_at(tmp_path, source, tmp_path / "out"), kills)
    assert kills.by_kind.total() == 14
    assert_same_dataset(str(tmp_path / "out"), undisturbed)


@pytest.mark.parametrize("kind", [*WORKERS, DRIVER, NODE])
def test_each_kind_of_process_may_die(tmp_path, source, undisturbed, kind):
    kills = Kills(seed=len(kind), num_left=1, kinds=(kind,), mean_pause_s=0.3)
    run_until_done(job_at(tmp_path, source, tmp_path / "out"), kills)
    assert kills.by_kind == {kind: 1}
    deaths = json.loads((tmp_path / "out" / "_run" / "summary.json").read_text())["this_run"]["label_actor_deaths"]
    assert deaths in ([{}, {UNTOLD: 1}] if kind == "label actor" else [{}])  # one that nobody needs has no successor
    assert_same_dataset(str(tmp_path / "out"), undisturbed)
