"""Captions, answers and phrases follow from the truth of a scene: each is worked out here again."""

import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from model.nano.scenes import SHAPES, Scene, parse_caption, referring_phrases, truth
from tests.model.drawn_scenes import with_objects


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
