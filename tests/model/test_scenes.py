"""Scenes are what their truth says they are: every label is recomputed here from pixels, fonts or objects alone."""

import dataclasses
import hashlib
import json
import os
import random
import re
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Callable
from itertools import combinations
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFont

from model.nano.scene_drawing import draw_scene
from model.nano.scene_layout import DARK_TONES, LIGHT_TONES, MAX_ASPECT, MAX_SIDE_PX, MIN_SIDE_PX, SIZE_SHARES
from model.nano.scene_records import Box, Ground, Layout, Placement
from model.nano.scene_text import FONTS, FONTS_FOLDER, TILE_PX, load_font, view_scales
from model.nano.scenes import (
    COLORS,
    SHAPES,
    SIZES,
    WORDS,
    Scene,
    World,
    ask,
    glyph_boxes,
    main,
    object_map,
    parse_caption,
    referring_phrases,
    render_scene,
    scene_seed,
    truth,
    write_scenes,
)
from model.tiling import select_resolution
from tests.command import REPOSITORY

NUM_SCENES = 300
GRIDS = sorted(
    ((w * TILE_PX, h * TILE_PX) for w in range(1, 10) for h in range(1, 10) if w * h <= 9),
    key=lambda size: size[0] * size[1],
)


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    return [render_scene(scene_seed(2024, index)) for index in range(NUM_SCENES)]


def with_objects(scenes: list[Scene]) -> list[Scene]:
    return [scene for scene in scenes if scene.objects]


def with_text(scenes: list[Scene]) -> list[Scene]:
    return [scene for scene in scenes if scene.text]


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def inside(inner: Box, outer: Box) -> bool:
    return outer[0] <= inner[0] < inner[2] <= outer[2] and outer[1] <= inner[1] < inner[3] <= outer[3]


def tight_box(is_covered: np.ndarray) -> Box:
    down, across = np.nonzero(is_covered)
    return int(across.min()), int(down.min()), int(across.max()) + 1, int(down.max()) + 1


def distance(pixels: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    return np.linalg.norm(pixels.astype(float) - np.array(rgb), axis=-1)


# The same every time


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


# Boxes


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


# Text


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


# What a person can tell apart


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


# What kinds of scenes there are


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


# Captions


def test_caption_round_trip_gives_the_objects_from_left_to_right(scenes: list[Scene]):
    for scene in scenes:
        by_center = sorted(scene.objects, key=lambda one: one.center)
        assert parse_caption(scene.caption) == [(one.color, one.shape) for one in by_center], scene.caption


def test_order_of_objects_is_clear_to_see(scenes: list[Scene]):
    for scene in scenes:
        centers = [one.center[0] for one in scene.objects]
        gaps = np.diff(centers) / min(scene.image.size)
        assert gaps.min(initial=1) > 0.03, (scene.seed, centers)


def test_caption_mentions_the_text(scenes: list[Scene]):
    for scene in scenes:
        lines = scene.text.split("\n") if scene.text else []
        assert re.findall('"(.*?)"', scene.caption) == lines[:1]
        assert (f"with {len(lines)} lines of text" in scene.caption) == (len(lines) > 1)


@pytest.mark.parametrize(
    ("caption", "pairs"),
    [
        ("", []),
        ('A page says "red circle".', []),
        ('A small blue star. A sign says "red circle', [("blue", "star")]),
        ("a RED Circle and a red circle", [("red", "circle"), ("red", "circle")]),
        ("a red circles and a darkred circle, a red big circle", []),
    ],
    ids=["empty", "quoted", "quote without end", "capitals and repeats", "near misses"],
)
def test_any_caption_can_be_parsed(caption: str, pairs: list[tuple[str, str]]):
    assert parse_caption(caption) == pairs


# Questions: every answer is worked out again, from the line of truth.jsonl alone


def singular(shapes: str) -> str:
    return next(shape for shape in SHAPES if shapes in (f"{shape}s", f"{shape}es"))


def matching(record: dict[str, Any], words: str) -> list[dict[str, Any]]:
    """Objects that have all the words."""
    return [one for one in record["objects"] if set(words.split()) <= {one["color"], one["shape"], one["size"]}]


def the_only(record: dict[str, Any], words: str) -> dict[str, Any]:
    (one,) = matching(record, words)
    return one


def center(one: dict[str, Any], axis: int) -> float:
    return (one["box"][axis] + one["box"][axis + 2]) / 2


def compare(record: dict[str, Any], direction: str, first: str, second: str) -> str:
    axis, end = {"further left": (0, 1), "further right": (0, -1), "higher": (1, 1), "lower": (1, -1)}[direction]
    one, other = the_only(record, first), the_only(record, second)
    lead = end * (center(other, axis) - center(one, axis))
    assert abs(lead) >= max(thing["box"][axis + 2] - thing["box"][axis] for thing in (one, other)) / 2
    return f"the {first if lead > 0 else second}"


def lines_of(record: dict[str, Any]) -> list[str]:
    return record["text"].split("\n") if record["text"] else []


def the_line(record: dict[str, Any]) -> str:
    (line,) = lines_of(record)
    return line


def yes(holds: bool) -> str:
    return "yes" if holds else "no"


ANSWERS: dict[str, Callable[..., str]] = {
    r"How many shapes are there\?": lambda record: str(len(record["objects"])),
    r"How many (\w+) shapes are there\?": lambda record, color: str(len(matching(record, color))),
    r"How many (\w+) are there\?": lambda record, shapes: str(len(matching(record, singular(shapes)))),
    r"Is there an? (\w+ \w+)\?": lambda record, name: yes(bool(matching(record, name))),
    r"What color is the (.+)\?": lambda record, name: the_only(record, name)["color"],
    r"What shape is the (\w+) one\?": lambda record, color: the_only(record, color)["shape"],
    r"What size is the (\w+ \w+)\?": lambda record, name: the_only(record, name)["size"],
    r"Which is (.+), the (\w+ \w+) or the (\w+ \w+)\?": compare,
    r"How many lines of text are there\?": lambda record: str(len(lines_of(record))),
    r"Is there any text\?": lambda record: yes(bool(record["text"])),
    r"Is there a sign\?": lambda record: yes(bool(record["text"]) and bool(record["objects"])),
    r"What does line (\d) say\?": lambda record, number: lines_of(record)[int(number) - 1],
    r"What does the sign say\?": the_line,
    r"What is written\?": the_line,
}


def kind_of(question: str) -> tuple[str, tuple[str, ...]]:
    ((pattern, match),) = [(one, match) for one in ANSWERS if (match := re.fullmatch(one, question))][:1]
    return pattern, match.groups()


def test_every_answer_follows_from_the_truth(scenes: list[Scene]):
    for scene in scenes:
        record = truth(scene, "x")
        for asked in record["questions"]:
            pattern, groups = kind_of(asked["question"])
            assert ANSWERS[pattern](record, *groups) == asked["answer"], (scene.seed, asked)


def test_every_kind_of_question_is_asked_and_none_is_answered_by_habit(scenes: list[Scene]):
    answers: dict[str, Counter[str]] = {pattern: Counter() for pattern in ANSWERS}
    for scene in scenes:
        assert 4 <= len(scene.questions) <= 6
        assert len({asked.question for asked in scene.questions}) == len(scene.questions)
        for asked in scene.questions:
            answers[kind_of(asked.question)[0]][asked.answer] += 1
    for pattern, counts in answers.items():
        assert counts.total() >= 10, pattern
        assert max(counts.values()) <= 0.75 * counts.total(), (pattern, counts)


# Referring phrases


def test_phrases_have_all_boxes_that_fit_and_no_other(scenes: list[Scene]):
    for scene in scenes:
        record = truth(scene, "x")
        for phrase, boxes in referring_phrases(scene):
            words = phrase.removeprefix("the ")
            if words == "sign":
                assert boxes == ([scene.layout.sign_box] if scene.layout.sign_box else [])
                continue
            if words.endswith("s") and not words.endswith("cross"):
                words = words.removesuffix(" shapes") if words.endswith(" shapes") else singular(words)
            assert [list(box) for box in boxes] == [one["box"] for one in matching(record, words)], phrase


def test_phrases_name_every_object_and_things_that_are_not_there(scenes: list[Scene]):
    absent = several = 0
    for scene in with_objects(scenes):
        phrases = referring_phrases(scene)
        assert len(dict(phrases)) == len(phrases)
        for one in scene.objects:
            for phrase in (f"the {one.name}", one.name, f"the {one.size} {one.name}", f"{one.color} shapes"):
                assert one.box in dict(phrases)[phrase]
        absent += any(not boxes for phrase, boxes in phrases if phrase != "the sign")
        several += any(len(boxes) > 1 for _, boxes in phrases)
    assert min(absent, several) > 0.3 * len(with_objects(scenes))


# The command


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
