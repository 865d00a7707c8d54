"""`labelmill label`: several images at once, and boxes drawn over them."""

import json
from pathlib import Path

import pytest
from PIL import Image

from jobs.draw_boxes import draw_boxes
from model.nano.scenes import render_scene, scene_seed
from schemas.rows import Label
from tests.command import assert_one_clear_line, labelmill_here

WHITE = (255, 255, 255)


def grounded(*boxes: tuple[str, float, float, float, float], image_index: int = 0) -> Label:
    found = [dict(zip(("label", "x1", "y1", "x2", "y2"), box, strict=True)) for box in boxes]
    return Label(
        recipe="grounding",
        recipe_digest="d",
        table="grounding",
        item=0,
        prompt="",
        num_prompt_tokens=1,
        num_output_tokens=1,
        finish_reason="stop",
        mean_logprob=0.0,
        values={"boxes": found, "image_index": image_index},
    )


@pytest.fixture
def scenes(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"scene-{index}.png" for index in range(2)]
    for index, path in enumerate(paths):
        render_scene(scene_seed(5000, index)).image.save(path)
    return paths


def test_several_images_are_labelled_and_one_that_cannot_be_is_told_beside_them(scenes: list[Path], tmp_path: Path):
    broken = tmp_path / "broken.jpg"
    broken.write_text("<html>404</html>")
    drawn = tmp_path / "seen.png"
    done = labelmill_here(
        *("label", scenes[0], broken, scenes[1], "--query", "the sign", "--json", "--draw", drawn),
        *("--set", "recipes.grounding.max_new_tokens=32"),
    )
    assert done.code == 1
    records = [json.loads(line) for line in done.stdout.splitlines()]
    assert [record["error"] and record["error"]["kind"] for record in records] == [None, "unreadable", None]
    assert [len(record["labels"]) for record in records] == [1, 0, 1]
    assert sorted(path.name for path in tmp_path.glob("seen*")) == ["seen-1.png", "seen-3.png"]


def test_printed_result_has_a_row_for_each_box(scenes: list[Path]):
    done = labelmill_here("label", scenes[0], "--query", "the sign", "--set", "recipes.grounding.max_new_tokens=32")
    assert done.code == 0
    assert "left, px" in done.stdout or "no box" in done.stdout


def test_drawn_boxes_lie_on_their_pixels_and_names_in_the_picture(tmp_path: Path):
    picture, path = Image.new("RGB", (300, 200), WHITE), tmp_path / "out.png"
    labels = [grounded(("a", 10, 50, 110, 150), ("b", 0, 0, 300, 200)), grounded(("c", 5, 5, 9, 9), image_index=1)]
    assert draw_boxes(picture, labels, path) == 2, "what lies in a second image is not drawn into the first"
    with Image.open(path) as drawn:
        assert drawn.size == picture.size
        inner, outer = drawn.getpixel((10, 100)), drawn.getpixel((0, 100))
        assert WHITE not in (inner, outer)
        assert inner != outer
        assert drawn.getpixel((109, 100)) == inner
        assert drawn.getpixel((60, 100)) == WHITE
    assert picture.getpixel((10, 100)) == WHITE


def test_boxes_are_drawn_at_the_size_of_a_picture_that_was_made_smaller(tmp_path: Path):
    picture, path = Image.new("RGB", (30, 20), WHITE), tmp_path / "out.png"
    draw_boxes(picture, [grounded(("", 100, 150, 200, 190))], path, size_px=(300, 200))
    with Image.open(path) as drawn:
        assert WHITE not in (drawn.getpixel((10, 17)), drawn.getpixel((19, 17)))


def test_drawing_needs_the_name_of_a_png(scenes: list[Path]):
    assert_one_clear_line(labelmill_here("label", scenes[0], "--draw", "seen.jpg"), "seen.jpg", ".png")


def test_drawing_that_cannot_be_written_is_one_line(tmp_path: Path):
    picture = Image.new("RGB", (10, 10))
    with pytest.raises(ValueError, match="cannot be written: No such file"):
        draw_boxes(picture, [grounded(("a", 1, 1, 5, 5))], tmp_path / "nowhere" / "out.png")
