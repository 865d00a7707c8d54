"""Signs and pages show the text that their truth says, in letters that can be read."""

import dataclasses
import random
import re
import tomllib
from pathlib import Path

import numpy as np
import pytest
from PIL import ImageFont

from model.nano.scene_drawing import draw_scene
from model.nano.scene_text import FONTS, FONTS_FOLDER, TILE_PX, load_font, view_scales
from model.nano.scenes import COLORS, SHAPES, SIZES, WORDS, Scene, glyph_boxes
from model.tiling import select_resolution
from tests.command import REPOSITORY
from tests.model.drawn_scenes import GRIDS, inside, with_text


def test_letters_lie_inside_the_canvas_and_inside_their_sign(scenes: list[Scene]):
    for scene in with_text(scenes):
        block = scene.layout.text
        assert block is not None
        frame = block.plate or (0, 0, *scene.image.size)
        font = load_font(block.font, block.em_px)
        for line, (x, y) in zip(block.lines, block.positions, strict=True):
            left, top, right, bottom = font.getbbox(line, anchor="ls")
            assert inside((x + int(left), y + int(top), x + int(right), y + int(bottom)), frame), (scene.seed, line)


def test_glyph_boxes_spell_the_text_and_hold_its_ink(scenes: list[Scene]):
    for scene in with_text(scenes)[:60]:
        block = scene.layout.text
        assert block is not None
        boxes = glyph_boxes(block)
        assert "".join(char for char, _ in boxes) == re.sub(r"\s", "", scene.text)
        ground = dataclasses.replace(scene.layout.ground, kind="plain", tones=((128, 0, 0),) * 2)
        bare = dataclasses.replace(
            scene.layout, placements=(), ground=ground, text=dataclasses.replace(block, plate=None)
        )
        is_ink = np.asarray(draw_scene(bare)[0])[..., 1] > 12
        for _, (x1, y1, x2, y2) in boxes:
            assert is_ink[y1:y2, x1:x2].any()
            is_ink[y1:y2, max(0, x1 - 1) : x2 + 1] = False
        assert is_ink.sum() <= 0.02 * block.em_px * len(boxes)


def test_small_print_is_legible_in_the_local_tiles_only(scenes: list[Scene]):
    for scene in with_text(scenes):
        block = scene.layout.text
        assert block is not None
        width, height = scene.image.size
        grid = select_resolution(width, height, GRIDS)
        global_px = block.em_px * TILE_PX / max(width, height)
        local_px = block.em_px * min(grid[0] / width, grid[1] / height)
        assert local_px > 16
        assert (global_px < 6.6) == (block.print_size == "small"), (scene.seed, global_px)


def test_scales_are_those_of_the_tiling():
    rng = random.Random(0)
    for _ in range(500):
        width, height = rng.randint(80, 1200), rng.randint(80, 1200)
        grid = select_resolution(width, height, GRIDS)
        assert view_scales(width, height) == pytest.approx(
            (TILE_PX / max(width, height), min(grid[0] / width, grid[1] / height)), rel=0.01
        )


def test_words_are_common_short_and_never_the_name_of_a_thing():
    assert len(set(WORDS)) == len(WORDS) == 152
    assert set("".join(WORDS)) == set("abcdefghijklmnopqrstuvwxyz")
    assert not {*COLORS, *SHAPES, *SIZES} & set(WORDS)


@pytest.mark.parametrize("name", FONTS)
def test_bundled_font_loads_from_any_folder_and_has_every_character(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    font = ImageFont.truetype(FONTS_FOLDER / f"{name}.ttf", 20)
    missing = bytes(font.getmask("\uffff"))
    assert all(bytes(font.getmask(char)) != missing for char in "abcdefghijklmnopqrstuvwxyz0123456789")


def test_fonts_are_small_licensed_and_part_of_the_package():
    assert sum(path.stat().st_size for path in FONTS_FOLDER.iterdir()) < 2_000_000
    licence = (FONTS_FOLDER / "LICENSE_DEJAVU.txt").read_text(encoding="utf-8")
    assert all(f"{name}.ttf" in licence for name in FONTS)
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text(encoding="utf-8"))
    assert "fonts/*" in project["tool"]["setuptools"]["package-data"]["model.nano"]
