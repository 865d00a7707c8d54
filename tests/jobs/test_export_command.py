"""`labelmill export` as a user runs it."""

import json

import pytest

from tests.command import assert_one_clear_line, labelmill, labelmill_here
from tests.pipeline.exported import finished_output, label, name_of, put_pictures


@pytest.fixture
def output(tmp_path) -> str:
    def labels(row):
        flags = ["loop", "truncated"] if "tiny" in name_of(row) else []
        return [label("captions", caption="A red thing.", style="plain", flags=flags)]

    source = put_pictures(tmp_path / "in", ["a/Photo One.JPG", "tall.png", "tiny.png"])
    return finished_output(source, tmp_path / "out", labels)


def test_summary_says_what_is_in_the_export_and_what_is_not(output, tmp_path):
    done = labelmill("export", output, "--to", "llava", "--without-flags", "loop,absent", "--json")
    assert done.code == 0, done.stderr
    lines = done.stdout.splitlines()
    assert lines[0] == "2 samples, 2 images (1 turned upright)"
    assert lines[1:3] == ["rows: captions 2", "left out: 1 rows, by flag: loop 1, absent 0"]
    assert lines[3].endswith(f"of llava in {output}/exports/llava")
    assert done.summary["num_rows"] == {"captions": 2}
    assert done.summary["left_out_by_flag"] == {"loop": 1, "absent": 0}
    assert len(json.loads((tmp_path / "out/exports/llava/llava.json").read_text())) == 2


def test_images_that_are_gone_are_named_and_end_with_code_3(output, tmp_path):
    (tmp_path / "in/tall.png").unlink()
    done = labelmill_here("export", output, "--to", "webdataset", "--out", tmp_path / "wds")
    assert done.code == 3
    assert "MISSING: 1 samples whose images cannot be had any more:" in done.stdout
    assert "tall.png: no such file" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["--to", "lava"], 2, "lava"),
        ([], 2, "--to"),
        (["--to", "llava", "--table", "captoins"], 1, "captoins"),
        (["--to", "coco"], 1, "nothing to export"),
        (["--to", "webdataset", "--images", "none"], 1, "holds the images themselves"),
    ],
)
def test_what_cannot_be_exported_is_one_clear_line(output, tmp_path, arguments, code, said):
    refused = labelmill_here("export", output, "--out", tmp_path / "e", *arguments)
    assert_one_clear_line(refused, said, code=code)
    assert not (tmp_path / "e").exists()


def test_folder_that_holds_no_run_and_folder_of_others_are_refused(output, tmp_path):
    assert_one_clear_line(labelmill_here("export", tmp_path, "--to", "llava"), "holds no run of labelmill")
    refused = labelmill_here("export", output, "--to", "llava", "--out", tmp_path / "in")
    assert_one_clear_line(refused, "which no export wrote", "choose another --out")
