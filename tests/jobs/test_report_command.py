"""`labelmill report` with its options."""

import pytest

from tests.command import assert_one_clear_line, labelmill_here
from tests.pipeline.exported import PICTURES, ended, finished_output, label, put_pictures


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("report-command")
    source = put_pictures(folder / "in")
    output = finished_output(
        source, folder / "out", lambda row: [label("captions", caption="A red thing.", style="plain")]
    )
    ended(output, "captions")
    return output


def num_cards(page: str) -> int:
    return page.count("<article ")


def test_report_lies_beside_the_run_unless_told_otherwise(output):
    found = labelmill_here("report", output)
    assert found.code == 0, found.stderr
    path = f"{output.removeprefix('file://')}/_run/report.html"
    with open(path, encoding="utf-8") as file:
        page = file.read()
    assert num_cards(page) == len(PICTURES)
    assert found.stdout.splitlines() == [
        f"{len(PICTURES)} rows counted, {len(PICTURES)} samples in the gallery",
        f"report: {len(page.encode())} bytes in {path}",
    ]


def test_out_names_the_file_and_images_the_most_samples(output, tmp_path):
    path = tmp_path / "of this run" / "a report.html"
    found = labelmill_here("report", output, "--images", 3, "--out", path)
    assert found.code == 0, found.stderr
    assert f"bytes in {path}" in found.stdout
    assert "9 rows counted, 3 samples in the gallery" in found.stdout
    assert num_cards(path.read_text()) == 3
    assert "3 of 9 samples: a draw" in path.read_text()


def test_no_images_leave_the_counts(output, tmp_path):
    found = labelmill_here("report", output, "--images", 0, "--out", tmp_path / "page.html")
    assert "9 rows counted, 0 samples in the gallery" in found.stdout
    page = (tmp_path / "page.html").read_text()
    assert (num_cards(page), "data:image/jpeg" in page) == (0, False)
    assert "No samples were asked for (--images 0)." in page
    assert "<figcaption>Tile grids, by labels</figcaption>" in page


def test_report_is_written_anew_over_an_earlier_one(output, tmp_path):
    for images in (2, 1):
        labelmill_here("report", output, "--images", images, "--out", tmp_path / "page.html")
    assert num_cards((tmp_path / "page.html").read_text()) == 1


@pytest.mark.parametrize("images", ["-1", "many"])
def test_number_of_images_that_is_none_is_wrong_usage(output, images):
    found = labelmill_here("report", output, "--images", images)
    assert found.code == 2
    assert "--images" in found.stderr


def test_folder_in_the_place_of_the_file_is_refused(output, tmp_path):
    assert_one_clear_line(
        labelmill_here("report", output, "--out", tmp_path), str(tmp_path), "is a folder where a file is needed"
    )


def test_output_that_no_run_ever_had_is_refused(tmp_path):
    found = labelmill_here("report", tmp_path / "nothing")
    assert_one_clear_line(found, "nothing", "holds no run of labelmill")
    assert not (tmp_path / "nothing").exists()
