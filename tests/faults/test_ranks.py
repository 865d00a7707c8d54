"""A replica of several ranks in a run: whichever of them is killed, no row is lost and nothing is left running."""

import json
import os
import re
import shutil
import time
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.command import labelmill, write_job
from tests.faults.disturbed import RANK, Kills, assert_same_dataset, run_until_done

pytestmark = pytest.mark.faults

NUM_IMAGES = 24
SETTLED_S = 10


def job_at(folder: Path, source: Path, *, ranks: int) -> Path:
    folder.mkdir(exist_ok=True)
    recipes = [
        {"name": "caption", "variants": [0], "max_new_tokens": 24},
        {"name": "qa", "questions": [f"How many shapes are there? {index}" for index in range(6)], "max_new_tokens": 8},
    ]
    return write_job(
        folder, source=str(source), output=str(folder / "out"), recipes=recipes, engine={"expert_ranks": ranks}
    )


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("images")
    for index in range(NUM_IMAGES):
        image = Image.new("RGB", (200 + 3 * index, 150), "white")
        ImageDraw.Draw(image).rectangle((20 + index, 30, 80 + index, 90), fill=("red", "blue", "green")[index % 3])
        image.save(folder / f"{index:03d}.png")
    return folder


@pytest.fixture(scope="module")
def on_one_rank(tmp_path_factory: pytest.TempPathFactory, source: Path) -> str:
    folder = tmp_path_factory.mktemp("one")
    done = labelmill("run", job_at(folder, source, ranks=1))
    assert done.code == 0, done.stderr
    return str(folder / "out")


def ranks_running() -> list[int]:
    """Of any engine on this machine whose parent is gone, or not."""
    found = []
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            title = Path(f"/proc/{entry}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        if re.search(r"-m model\.rank_process ", title):
            found.append(int(entry))
    return found


@pytest.mark.parametrize("seed", [3, 4])
def test_ranks_that_are_killed_cost_no_row_and_leave_no_process(tmp_path, source, on_one_rank, seed):
    before = set(ranks_running())
    kills = Kills(seed=seed, num_left=3, kinds=(RANK,), mean_pause_s=1.0)
    while kills.num_left > 0:  # the job may be done before all kills were used
        shutil.rmtree(tmp_path / "job", ignore_errors=True)
        run_until_done(job_at(tmp_path / "job", source, ranks=2), kills)
    assert kills.by_kind == {RANK: 3}
    assert_same_dataset(str(tmp_path / "job" / "out"), on_one_rank)
    summary = json.loads((tmp_path / "job" / "out" / "_run" / "summary.json").read_text())
    deaths = summary["this_run"]["label_actor_deaths"]
    assert sum(deaths.values()) >= 1
    assert all(re.match(r"rank \d was ended by signal 9", reason) for reason in deaths), deaths
    told = labelmill("status", tmp_path / "job" / "out").stdout
    assert f"label actor{'s' if sum(deaths.values()) > 1 else ''} died: rank " in told
    end = time.monotonic() + SETTLED_S
    while set(ranks_running()) - before and time.monotonic() < end:
        time.sleep(0.1)
    assert set(ranks_running()) <= before
