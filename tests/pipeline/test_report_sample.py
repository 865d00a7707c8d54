"""Which samples the report shows of an output that has more of them than it may show."""

import json
import re
from dataclasses import replace
from html import unescape
from pathlib import Path

import pytest

from pipeline.lease import hold_lease
from pipeline.report.page import write_report
from pipeline.storage import canonical_uri
from pipeline.work import Work
from schemas.errors import ErrorKind, RowError
from schemas.rows import ImageRow
from tests.pipeline.outputs import commit, job_of, labelled, pending, put_images, resolve

NUM_IMAGES, NUM_SHOWN = 60, 12
RARE = {
    "i07.jpg": ("every recipe", ErrorKind.MISSING),
    "i21.jpg": ("caption", ErrorKind.CONTEXT_TOO_LONG),
    "i33.jpg": ("ocr", ErrorKind.ANSWER_REJECTED),
    "i34.jpg": ("caption", ErrorKind.ANSWER_REJECTED),
}
FLAGGED = {"i40.jpg": ("exif_rotated", "loop"), "i50.jpg": ("exif_rotated",), "i51.jpg": ("exif_rotated",)}


def ended(work: Work, row: ImageRow) -> ImageRow:
    name = row.image_uri.rpartition("/")[2]
    recipe, kind = RARE.get(name, ("", None))
    row = labelled(work, row)
    if kind is not None:
        error = RowError(kind=kind, message=f"{name} was made to fail")
        if recipe == "every recipe":
            return replace(row, labels=(), error=error)
        labels = tuple(label for label in row.labels if label.recipe != recipe)
        return replace(row, labels=labels, recipe_errors=((recipe, error),))
    flags = FLAGGED.get(name, ())
    return replace(row, labels=tuple(replace(label, flags=flags) for label in row.labels))


@pytest.fixture(scope="module")
def work(tmp_path_factory) -> Work:
    """Sixty images with two recipes, of which a few failed in different ways; the files are no pictures."""
    folder = tmp_path_factory.mktemp("sample")
    source = put_images(folder / "in", *(f"i{number:02d}.jpg" for number in range(NUM_IMAGES)))
    work = resolve(job_of(source, folder / "out", recipes=["ocr", "caption"]))
    rows = [ended(work, row) for row in pending(work)]
    with hold_lease(work.folder.lease_uri):
        for first in range(0, NUM_IMAGES, 7):
            commit(work, *rows[first : first + 7])
    return work


def cards(page: str) -> dict[str, dict[str, list[str]]]:
    """By file name: its recipes, flags and error kinds."""
    found = re.findall(
        r'<article [^>]*data-recipes="(.*?)" data-flags="(.*?)" data-kinds="(.*?)" aria-label="(.*?)"', page
    )
    return {
        uri.rpartition("/")[2]: dict(
            zip(("recipes", "flags", "kinds"), map(json.loads, map(unescape, lists)), strict=True)
        )
        for *lists, uri in found
    }


def shown(work: Work, path: Path, max_images: int) -> tuple[dict[str, dict[str, list[str]]], str]:
    write_report(work.folder.output_uri, out=canonical_uri(str(path)), max_images=max_images)
    page = path.read_text()
    return cards(page), page


def test_sample_holds_every_reason_flag_and_recipe_and_says_that_it_is_one(work, tmp_path):
    found, page = shown(work, tmp_path / "page.html", NUM_SHOWN)
    assert len(found) == NUM_SHOWN
    assert set(RARE) <= set(found), "each reason in each of its recipes has one sample here, and it must be shown"
    assert {kind for card in found.values() for kind in card["kinds"]} == {kind.value for _, kind in RARE.values()}
    assert {flag for card in found.values() for flag in card["flags"]} == {"exif_rotated", "loop"}
    assert "i40.jpg" in found, "of its two flags the rare one is the second"
    assert {recipe for card in found.values() for recipe in card["recipes"]} == {"ocr", "caption"}
    assert set(found) - set(RARE) - set(FLAGGED), "and what is common is shown too"
    assert f"{NUM_SHOWN} of {NUM_IMAGES} samples: a draw that takes from every recipe, flag and error kind" in page
    assert "some may be missing" not in page


def test_reason_that_several_recipes_share_is_told_once(work, tmp_path):
    _, page = shown(work, tmp_path / "page.html", NUM_SHOWN)
    assert "<b>caption, ocr</b> missing:" in page
    assert "i07.jpg · caption, ocr · fetch" in page
    assert page.count("i07.jpg was made to fail") == 3, "as the reason of no picture, in its card, in the list"


def test_counts_are_of_all_rows_whatever_is_shown(work, tmp_path):
    pages = [shown(work, tmp_path / f"{most}.html", most)[1] for most in (0, NUM_SHOWN, NUM_IMAGES)]
    counts = [re.findall(r"<dt>(.*?)</dt><dd>(.*?)</dd>", page) for page in pages]
    assert counts[0] == counts[1] == counts[2]
    assert dict(counts[0])["quarantined pairs"] == "5"
    assert dict(counts[0])["label rows"] == str(2 * NUM_IMAGES - 5)


def test_output_no_larger_than_the_sample_is_shown_whole(work, tmp_path):
    found, page = shown(work, tmp_path / "page.html", NUM_IMAGES)
    assert len(found) == NUM_IMAGES
    assert f"{NUM_IMAGES} of {NUM_IMAGES} samples." in page
    assert "a draw that takes" not in page


def test_sample_smaller_than_the_number_of_its_groups_says_so(work, tmp_path):
    found, page = shown(work, tmp_path / "page.html", 3)
    assert len(found) == 3
    assert "some may be missing (--images shows more)" in page


def test_same_output_has_the_same_sample(work, tmp_path):
    first, second = (shown(work, tmp_path / f"{time}.html", NUM_SHOWN)[0] for time in "ab")
    assert first == second
