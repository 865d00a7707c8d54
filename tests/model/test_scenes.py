"""Scenes are what their truth says they are: every label is recomputed here from pixels or objects alone."""

import hashlib
import json
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from model.nano.scene_drawing import draw_scene
from model.nano.scene_layout import DARK_TONES, LIGHT_TONES, MAX_ASPECT, MAX_SIDE_PX, MIN_SIDE_PX, SIZE_SHARES
from model.nano.scene_records import Ground, Layout, Placement
from model.nano.scene_text import FONTS
from model.nano.scenes import (
    COLORS,
    SHAPES,
    SIZES,
    WORDS,
    Scene,
    World,
    ask,
    main,
    object_map,
    render_scene,
    scene_seed,
    truth,
    write_scenes,
)
from model.tiling import select_resolution
from tests.command import REPOSITORY
from tests.model.drawn_scenes import GRIDS, NUM_SCENES, distance, inside, overlap, tight_box, with_objects, with_text


def test_same_seed_gives_the_same_bytes_in_another_process(tmp_path: Path):
    """Another process has another hash seed, so no set or dict order leaks into a scene."""
    write_scenes(7, 8, tmp_path / "here")
    command = [
        sys.executable,
        "-m",
        "model.nano.scenes",
        "--seed",
        "7",
        "--count",
        "8",
        "--out",
        str(tmp_path / "there"),
    ]
    environment = {**os.environ, "PYTHONHASHSEED": "12345"}
    subprocess.run(command, cwd=REPOSITORY, env=environment, check=True, capture_output=True)
    here, there = (
        {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in (tmp_path / folder).iterdir()}
        for folder in ("here", "there")
    )
    assert here == there
    assert len(here) == 9


def test_scenes_do_not_depend_on_those_rendered_before():
    first, _, again = render_scene(5), render_scene(6), render_scene(5)
    assert (truth(first, "x"), first.image.tobytes()) == (truth(again, "x"), again.image.tobytes())


def test_sets_of_different_seeds_share_no_scene():
    assert len({scene_seed(seed, index) for seed in range(20) for index in range(50)}) == 1000


def test_another_stream_asks_other_questions_about_the_same_scene(scenes: list[Scene]):
    scene = max(scenes, key=lambda one: len(one.objects))
    asked = {question for seed in range(10) for question in ask(random.Random(seed), scene.objects, scene.layout)}
    assert len(asked) > len(scene.questions)


def test_negative_seed_is_refused_because_random_would_take_its_sign_away():
    with pytest.raises(ValueError, match="0 or more, got -3"):
        render_scene(-3)


def test_renderer_needs_numpy_and_pillow_only():
    code = (
        "import sys; sys.modules['torch'] = None; from model.nano import scenes; scenes.render_scene(0);"
        "print([n for n in sys.modules if n.startswith(('model.', 'pipeline')) and not n.startswith('model.nano')])"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=REPOSITORY, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("short_px", [80, 300, 1200])
def test_box_is_tight_around_the_pixels_that_show_the_shape(shape: str, size: str, short_px: int):
    ground = Ground(kind="plain", tones=((250, 250, 250),) * 2, vertical=False, cell_px=3, noise=b"")
    extent_px = round(SIZE_SHARES[size][0] * short_px)
    placement = Placement(color="red", shape=shape, size=size, rgb=(220, 30, 30), left=9, top=7, extent_px=extent_px)
    layout = Layout(width=short_px, height=short_px, ground=ground, placements=(placement,), text=None)
    image, (drawn,) = draw_scene(layout)
    pixels = np.asarray(image)
    seen = tight_box(distance(pixels, (220, 30, 30)) < distance(pixels, (250, 250, 250)))
    assert np.abs(np.subtract(seen, drawn.box)).max() <= 1
    assert inside(drawn.box, placement.patch)


def test_boxes_hold_exactly_the_pixels_of_their_colour_in_whole_scenes(scenes: list[Scene]):
    for scene in with_objects(scenes)[:150]:
        pixels = np.asarray(scene.image)
        free = np.ones(pixels.shape[:2], dtype=bool)
        for drawn, placement in zip(scene.objects, scene.layout.placements, strict=True):
            x1, y1, x2, y2 = drawn.box
            around = pixels[y1 - 2 : y2 + 2, x1 - 2 : x2 + 2]
            to_ground = np.minimum(*(distance(around, tone) for tone in scene.layout.ground.tones))
            seen = tight_box(distance(around, placement.rgb) < to_ground)
            assert np.abs(np.subtract(seen, (2, 2, x2 - x1 + 2, y2 - y1 + 2))).max() <= 1, (scene.seed, drawn)
            free[y1 - 1 : y2 + 1, x1 - 1 : x2 + 1] = False
        for placement in scene.layout.placements:
            assert distance(pixels[free], placement.rgb).min(initial=255) > 60, (scene.seed, placement)


def test_object_map_has_every_object_where_its_box_is(scenes: list[Scene]):
    for scene in scenes[:100]:
        indices = object_map(scene.layout)
        assert indices.shape == (scene.image.height, scene.image.width)
        assert indices.max() == len(scene.objects)
        for index, drawn in enumerate(scene.objects):
            assert tight_box(indices == 1 + index) == drawn.box


def test_objects_and_sign_lie_inside_and_apart(scenes: list[Scene]):
    for scene in scenes:
        boxes = [one.box for one in scene.objects] + ([scene.layout.sign_box] if scene.layout.sign_box else [])
        assert all(inside(box, (0, 0, *scene.image.size)) for box in boxes), scene.seed
        grown = [(x1 - 2, y1 - 2, x2, y2) for x1, y1, x2, y2 in boxes]
        assert not any(overlap(one, other) for one, other in combinations(grown, 2)), scene.seed


def test_sizes_leave_nothing_in_between(scenes: list[Scene]):
    shares: dict[str, list[float]] = {size: [] for size in SIZES}
    for scene in scenes:
        for one in scene.objects:
            longest_px = max(one.box[2] - one.box[0], one.box[3] - one.box[1])
            shares[one.size].append(longest_px / min(scene.image.size))
    assert max(shares["small"]) < 0.30 < 0.35 < min(shares["large"])


def test_colours_are_far_from_each_other_and_from_every_ground():
    assert len(COLORS) >= 8
    assert min(distance(np.array(one), other) for one, other in combinations(COLORS.values(), 2)) > 70
    for scene in (render_scene(seed) for seed in range(60)):
        for tone in scene.layout.ground.tones:
            assert min(distance(np.array(tone), color) for color in COLORS.values()) > 120


def test_ink_keeps_the_contrast_that_readers_need(scenes: list[Scene]):
    """At least 7:1, the enhanced contrast of WCAG."""

    def luminance(rgb: tuple[int, ...]) -> float:
        linear = [
            level / 12.92 if level <= 0.04045 else ((level + 0.055) / 1.055) ** 2.4 for level in np.array(rgb) / 255
        ]
        return float(np.dot(linear, (0.2126, 0.7152, 0.0722)))

    for scene in with_text(scenes):
        block = scene.layout.text
        assert block is not None
        for behind in (block.plate_rgb,) if block.plate else scene.layout.ground.tones:
            dark, light = sorted((luminance(block.ink), luminance(behind)))
            assert (light + 0.05) / (dark + 0.05) > 7, scene.seed


def test_canvases_have_every_size_and_aspect_ratio(scenes: list[Scene]):
    sizes = [scene.image.size for scene in scenes]
    ratios = [width / height for width, height in sizes]
    assert all(MIN_SIDE_PX <= side <= MAX_SIDE_PX for size in sizes for side in size)
    assert all(1 / MAX_ASPECT <= ratio <= MAX_ASPECT for ratio in ratios)
    assert min(ratios) < 0.25
    assert max(ratios) > 4
    assert min(map(max, sizes)) < 120
    assert max(map(max, sizes)) > 1000
    assert len({select_resolution(*size, GRIDS) for size in sizes}) >= 10


def test_everything_of_the_vocabulary_appears(scenes: list[Scene]):
    objects = [one for scene in scenes for one in scene.objects]
    for attribute, vocabulary in (("color", COLORS), ("shape", SHAPES), ("size", SIZES)):
        counts = Counter(getattr(one, attribute) for one in objects)
        assert set(counts) == set(vocabulary)
        assert min(counts.values()) > 0.4 * len(objects) / len(vocabulary)
    tones = {tone for scene in scenes for tone in scene.layout.ground.tones}
    assert tones >= {*LIGHT_TONES, *DARK_TONES}
    assert {scene.layout.ground.kind for scene in scenes} == {"plain", "gradient", "stripes", "checks", "speckles"}
    assert {block.font for scene in scenes if (block := scene.layout.text)} == set(FONTS)


def test_scenes_have_one_to_four_objects_and_pages_one_to_eight_lines(scenes: list[Scene]):
    num_objects = Counter(len(scene.objects) for scene in with_objects(scenes))
    assert set(num_objects) == {1, 2, 3, 4}
    assert min(num_objects.values()) > 0.1 * num_objects.total()
    num_lines = Counter(len(scene.layout.lines) for scene in scenes if not scene.objects)
    assert set(num_lines) == set(range(1, 9))
    assert 0.15 < num_lines.total() / NUM_SCENES < 0.35
    assert 0.2 < sum(scene.layout.sign_box is not None for scene in scenes) / NUM_SCENES < 0.4


def test_both_sizes_of_print_are_common(scenes: list[Scene]):
    sizes = Counter(block.print_size for scene in scenes if (block := scene.layout.text))
    assert min(sizes["small"], sizes["large"]) > 0.25 * sizes.total()


def test_numbers_of_one_to_four_digits_stand_among_the_words(scenes: list[Scene]):
    items = " ".join(scene.text for scene in scenes).split()
    numbers = [item for item in items if item.isdecimal()]
    assert {len(number) for number in numbers} == {1, 2, 3, 4}
    assert all(str(int(number)) == number for number in numbers)
    assert set(items) - set(numbers) <= set(WORDS)


def test_alike_objects_are_common(scenes: list[Scene]):
    several = [scene.objects for scene in scenes if len(scene.objects) > 1]

    def share(is_alike: Callable[[Any, Any], bool]) -> float:
        return sum(any(is_alike(*pair) for pair in combinations(objects, 2)) for objects in several) / len(several)

    assert share(lambda one, other: one.shape == other.shape and one.color != other.color) > 0.3
    assert share(lambda one, other: one.color == other.color and one.shape != other.shape) > 0.25
    assert 0.03 < share(lambda one, other: (one.name, one.size) == (other.name, other.size)) < 0.3


def test_world_of_a_curriculum_draws_what_it_asks_for():
    single = World(page_share=0, sign_share=0, max_objects=1)
    assert {len(render_scene(seed, single).objects) for seed in range(30)} == {1}
    pages = World(page_share=1, max_lines=3)
    assert {len(render_scene(seed, pages).layout.lines) for seed in range(60)} == {1, 2, 3}


def test_command_writes_png_and_jpeg_by_turns_and_their_truth(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    main(["--seed", "3", "--count", "4", "--out", str(tmp_path / "new" / "folder")])
    folder = tmp_path / "new" / "folder"
    assert capsys.readouterr().out.strip() == f"4 scenes, their truth in {folder / 'truth.jsonl'}"
    records = [json.loads(line) for line in (folder / "truth.jsonl").read_text(encoding="utf-8").splitlines()]
    assert [record["file"] for record in records] == [f"scene-3-{i}.{'png' if i % 2 == 0 else 'jpg'}" for i in range(4)]
    for index, record in enumerate(records):
        scene = render_scene(scene_seed(3, index))
        assert record == truth(scene, record["file"])
        assert list(record) == ["file", "objects", "text", "questions", "caption"]
        with Image.open(folder / record["file"]) as image:
            assert (image.format, image.mode) == ("PNG" if index % 2 == 0 else "JPEG", "RGB")
            drift = np.abs(np.asarray(image).astype(int) - np.asarray(scene.image))
        assert drift.max() == 0 if index % 2 == 0 else drift.mean() < 6


@pytest.mark.parametrize("value", ["-1", "1.5", "many"])
def test_command_refuses_a_count_that_is_no_whole_number(
    value: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    with pytest.raises(SystemExit):
        main(["--seed", "0", f"--count={value}", "--out", str(tmp_path)])
    assert f"must be a whole number, 0 or more, got '{value}'" in capsys.readouterr().err
