"""`labelmill bench`: every figure with its bound and its setting; and one clear line for what cannot be measured."""

import json
import math
from pathlib import Path

import pytest
import torch

from tests.command import assert_one_clear_line, labelmill_here

FIGURES = {
    "vision_tiles_per_s",
    *(f"{grid}_{phase}_tokens_per_s" for grid in ("one_tile", "nine_tiles") for phase in ("prefill", "decode")),
    *(f"{grid}_{recipes}_images_per_s" for grid in ("one_tile", "nine_tiles") for recipes in ("1_recipe", "4_recipes")),
}
SMALLEST_RUN = ("--device", "cpu", "--batch", 1, "--output-tokens", 12, "--repeats", 1)


@pytest.mark.e2e
def test_nano_is_measured_with_every_figure_beside_its_roofline(tmp_path: Path):
    done = labelmill_here("bench", *SMALLEST_RUN, "--json", tmp_path / "bench.json", "--profile", tmp_path / "profile")
    assert done.code == 0, done
    report = json.loads((tmp_path / "bench.json").read_text())
    assert report["figures"].keys() == FIGURES
    for name, figure in report["figures"].items():
        assert all(math.isfinite(value) and value > 0 for value in figure.values()), name
        assert figure["lowest"] <= figure["median"] <= figure["highest"]
        assert figure["fraction_of_roofline"] == pytest.approx(figure["median"] / figure["roofline"])
        assert name.replace("_per_s", "/s").replace("_", " ") in done.stdout
    assert report["machine"]["copy_bytes_per_s"] > 0
    assert report["machine"]["matmul_flops_per_s"] > 0
    expected = {"checkpoint": "nano", "device": "cpu", "dtype": "float32", "batch": 1, "output_tokens": 12}
    assert expected.items() <= report["settings"].items()
    assert report["settings"]["num_threads"] == torch.get_num_threads()
    assert report["settings"]["versions"]["torch"] == torch.__version__
    assert {"labelmill", "python", "triton"} <= report["settings"]["versions"].keys()
    assert report["model"]["num_parameters"] > report["model"]["num_activated_language_parameters"] > 0
    assert 0 < report["engine"]["batch_occupancy"] <= 1
    assert report["engine"]["prefix_hit_rate"] > 0, "four prompts about one view"
    for phase in ("prefill", "decode"):
        assert json.loads((tmp_path / "profile" / f"{phase}.json").read_text())["traceEvents"]
        assert "aten::" in (tmp_path / "profile" / f"{phase}.txt").read_text()


@pytest.mark.parametrize(
    ("options", "fragments"),
    [
        (["--model", "smal"], ["--checkpoint is 'smal'", "nano, tiny, small, 27b, bench-150m"]),
        (["--checkpoint", "/no/such/folder"], ["--checkpoint is '/no/such/folder'"]),
        (["--device", "gpu"], ["--device is 'gpu'", "cpu, cuda or cuda:N"]),
        (["--dtype", "bf16"], ["--dtype is 'bf16'", "float32 or bfloat16"]),
        (["--batch", "0"], ["--batch is 0", "at least 1"]),
        (["--batch", "many"], ["--batch", "valid integer"]),
        (["--output-tokens", "1"], ["--output-tokens is 1", "at least 2"]),
        (["--repeats", "0"], ["--repeats is 0"]),
        (["--json", "/no/such/folder/bench.json"], ["--json is '/no/such/folder/bench.json'", "a folder that exists"]),
        (["--profile", __file__], ["--profile is", "a folder"]),
        (["--device", "cpu", "--max-memory-gb", "40"], ["--max-memory-gb is 40.0", "it is for cuda"]),
        (["--mdoel", "nano"], ["--mdoel"]),
    ],
    ids=lambda value: " ".join(map(str, value)),
)
def test_option_that_cannot_be_is_told_in_one_line(options: list[str], fragments: list[str]):
    assert_one_clear_line(labelmill_here("bench", *options), *fragments, code=2)


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_gpu_that_is_not_there_is_told_in_one_line():
    assert_one_clear_line(labelmill_here("bench", "--device", "cuda"), "--device is 'cuda'", "0 CUDA devices", code=2)


def test_more_output_than_the_context_holds_is_told_before_anything_is_measured():
    done = labelmill_here("bench", "--device", "cpu", "--output-tokens", 2000)
    assert_one_clear_line(done, "2000 of output are more than the model's context of 2048", code=1)
    assert "warming up" not in done.stderr
