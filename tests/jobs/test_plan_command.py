"""`labelmill plan`: what it prints for a person and for a program, and that bad usage is told in one line."""

import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import pytest

from jobs.plan import print_plan
from tests.command import assert_one_clear_line, labelmill_here, write_job
from tests.pipeline.pictures import encode, four_corners

RANGE = {"low": 10.0, "expected": 12.5, "high": 20.0}
PLAN = {
    "name": "photos",
    "source": "s3://bucket/in",
    "output": "s3://bucket/out",
    "checkpoint": "small@0123456789ab",
    "images": {"num_images": 1_200_000, "num_new_images": 200_000, "num_to_label": 200_100, "num_ignored_files": 3},
    "sample": {
        "num_images": 500,
        "seed": 0,
        "took_s": 2.0,
        "grids": {"1x1": 120, "2x3": 360},
        "tiles_per_image": 5.52,
        "num_tiles": 1_104_552,
        "quarantined": {"unreadable": 20},
    },
    "recipes": {
        "caption": {
            "origin": "last run",
            "prompt_tokens": 950.4,
            "output_tokens": 180.25,
            "labels_per_image": 0.96,
            "num_output_tokens_expected": 34_625_304,
        },
        "qa": {},
    },
    "measured": {
        "num_images": 64,
        "labeling_s": 5.0,
        "tiling_s": 4.0,
        "num_threads": None,
        "quarantined": {"unreadable": 2, "answer_rejected": 1},
    },
    "budget": {"max_images": {"limit": 10, "expected": 12, "fits": False}},
    "forecast": {
        "images_per_s": RANGE,
        "startup_s": RANGE,
        "run_s": {"low": 10_000.0, "expected": 16_000.0, "high": 20_000.0},
        "gpu_hours": RANGE,
        "output_bytes": 123_400_000,
    },
    "memory": {
        "weight_bytes": 32_300_000_000,
        "dense_bytes": 3_000_000_000,
        "expert_bytes": 29_300_000_000,
        "activation_bytes": 1_000_000_000,
        "kv_bytes_per_token": 31_104,
        "device_bytes": 80_000_000_000,
        "usable_fraction": 0.9,
        "cache_bytes": 38_700_000_000,
        "cache_tokens": 1_244_212,
        "tokens_per_sequence": 1131,
        "sequences_at_once": 16,
        "note": "the checkpoint fits one GPU",
    },
    "cluster": {
        "cluster": "this machine",
        "num_nodes": 1,
        "num_cpus": 32,
        "num_gpus": 4,
        "num_label_actors": 4,
        "num_tile_actors": 27,
        "label_num_gpus": 1.0,
        "label_num_threads": 4,
        "expert_ranks": 1,
    },
}


def printed(**changed) -> str:
    text = io.StringIO()
    with redirect_stdout(text):
        print_plan({**PLAN, **changed})
    return text.getvalue()


@pytest.fixture
def job(tmp_path: Path) -> Path:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        (photos / f"{number}.png").write_bytes(encode(four_corners(40 + 60 * number, 40), "PNG"))
    return write_job(tmp_path, source=str(photos), output=str(tmp_path / "out"))


@pytest.mark.parametrize(
    "line",
    [
        "images: 1,200,000, of which 200,000 are new to the output; 200,100 to label",
        "ignored: 3 files of the source that are no images",
        "grids (tiles wide x high): 1x1 25%, 2x3 75%",
        "vision tiles: 5.52 an image, 1,104,552 in all",
        "quarantined by their headers: 4.0% unreadable",
        "measured: 64 images labelled in 5.0 s by one replica with a GPU, tiled in 4.0 s beside it",
        "quarantined: 3.1% unreadable, 1.6% answer_rejected",
        "images/s: 12.50 (10.00 to 20.00)",
        "time: 4.4 h (2.8 to 5.6); in it 12 (10 to 20) s for starting and ending",
        "GPU hours: 12.50 (10.00 to 20.00)",
        "output: about 123.4 MB of tables",
        "memory of a rank: 32.3 GB of weights (3.0 GB that every rank holds, 29.3 GB of its experts)",
        "1,244,212 tokens, 16 sequences of 1,131 at once",
        "the checkpoint fits one GPU",
        "4 replicas of 1 GPUs, 27 tile actors",
    ],
)
def test_every_figure_has_its_line(line: str):
    assert line in printed()


def test_recipe_that_nothing_is_known_of_is_shown_as_such():
    (caption,) = (line for line in printed().splitlines() if "caption" in line)
    (qa,) = (line for line in printed().splitlines() if " qa " in line)
    assert [cell.strip() for cell in caption.split("│")[1:-1]] == [
        "caption",
        "0.96",
        "950",
        "180.2",
        "34,625,304",
        "last run",
    ]
    assert "not known" in qa


def test_job_without_anything_left_says_so_instead_of_a_time():
    nothing = {**PLAN["images"], "num_to_label": 0}
    text = printed(images=nothing, measured=None, forecast=None, sample={**PLAN["sample"], "num_images": 0})
    assert "nothing is left to label" in text
    assert "images/s" not in text


def test_speed_that_was_not_measured_is_not_made_up():
    text = printed(measured=None, forecast=None)
    assert "speed: not measured" in text
    assert "images/s" not in text


def test_plan_of_a_described_cluster_is_printed_as_json_too(job: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    done = labelmill_here("plan", job, "--gpus", 2, "--gpu-memory-gb", 24, "--nodes", 3, "--sample", 2, "--json")
    assert done.code == 0, done
    found = json.loads(done.stdout.splitlines()[-1])
    assert (found["images"]["num_to_label"], found["sample"]["num_images"]) == (4, 2)
    assert (found["measured"], found["forecast"]) == (None, None)
    assert (found["cluster"]["num_gpus"], found["cluster"]["num_label_actors"]) == (6, 6)
    assert found["memory"]["cache_tokens"] > 0
    assert not (job.parent / "out").exists()


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--gpus", "2"], ["--gpus needs --gpu-memory-gb"]),
        (["--nodes", "2"], ["give --gpus with them"]),
        (["--sample", "0"], ["--sample"]),
        (["--gpus", "none"], ["--gpus", "valid integer"]),
        (["--set", "engine.dtyp=float32"], ["engine.dtyp"]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_wrong_usage_is_told_in_one_line(job: Path, options: list[str], fragments: list[str]):
    assert_one_clear_line(labelmill_here("plan", job, *options), *fragments, code=2)


def test_gpus_that_hold_no_checkpoint_are_told_with_the_figures(job: Path):
    done = labelmill_here("plan", job, "--gpus", 1, "--gpu-memory-gb", 0.5)
    assert_one_clear_line(done, "needs", "GB", "larger GPUs")


def test_source_that_is_not_there_is_told_in_one_line(job: Path):
    done = labelmill_here("plan", job, "--set", "source=/no/such/folder")
    assert_one_clear_line(done, "/no/such/folder")
