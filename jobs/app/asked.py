"""What somebody has filled in on the page -> entries of a job, or one sentence that says what is missing."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import ValidationError

from pipeline.recipes import load_recipe
from pipeline.recipes.fit import keys_of
from schemas.job import RecipeSpec
from schemas.job_problems import problems_of
from schemas.rows import Mark

MARK_KINDS = ("box", "arrow", "circle", "scribble")
_NUMBER = re.compile(r"-?[0-9]+(?:\.[0-9]+)?")


@dataclass(frozen=True, kw_only=True)
class Asked:
    """`turns`: of a conversation, what the user says."""

    specs: tuple[RecipeSpec, ...]
    turns: tuple[str, ...]
    mark: Mark | None


def asked(
    recipes: Sequence[str],
    *,
    num_images: int,
    questions: str = "",
    queries: str = "",
    style: str = "",
    mark_kind: str = "box",
    mark_points: str = "",
    max_new_tokens: str = "",
    temperature: str = "",
) -> Asked:
    """
    Args:
        questions, queries: one on each line.
        style: for the recipes that have one of this name; "" leaves each its default.
        mark_points: numbers, x and y by turns.
        max_new_tokens, temperature: numbers; "" leaves each recipe its own.

    Raises:
        ValueError: in words for whoever filled the page in.
    """
    if not recipes:
        raise ValueError("Choose a recipe: it says what is asked about the image.")
    lines, wanted = _lines(questions), _lines(queries)
    if not num_images and not all(load_recipe(name).file.takes(0) for name in recipes):
        raise ValueError("Choose an image first.")
    mark = _mark(mark_kind, mark_points)
    given = {"max_new_tokens": max_new_tokens.strip(), "temperature": temperature.strip()}
    settings = {name: value for name, value in given.items() if value}
    specs = []
    for name in recipes:
        entry: dict[str, Any] = {"name": name, **settings}
        file = load_recipe(name).file
        repeats, keys = file.repeats_for(), keys_of(file)
        if repeats & {"questions", "turns"} and not lines:
            raise ValueError(f"{name} needs a question: write one into Questions.")
        if "queries" in repeats and not wanted:
            raise ValueError(f"{name} needs to know what to find: name it in Things to find.")
        if "marks" in repeats and mark is None:
            raise ValueError(f"{name} needs a mark: fill in the points of Mark, in pixels of the first image.")
        if "questions" in repeats:
            entry["questions"] = lines
        if "queries" in repeats:
            entry["queries"] = wanted
        if "marks" in repeats:
            entry |= {"marks_from": "mark", "questions": lines, "style": "ask" if lines else "describe"}
        if "labels" in repeats:
            entry["of"] = [other for other in recipes if "labels" not in load_recipe(other).file.repeats_for()]
            if not entry["of"]:
                raise ValueError(f"{name} judges what other recipes say: choose one of them as well.")
        if style and "style" in keys and style in file.styles and "marks" not in repeats:
            entry["style"] = style
        specs.append(_spec(entry))
    turns = lines if any("turns" in load_recipe(name).file.repeats_for() for name in recipes) else []
    return Asked(specs=tuple(specs), turns=tuple(turns), mark=mark)


def _spec(entry: dict[str, Any]) -> RecipeSpec:
    try:
        return RecipeSpec(**entry)
    except ValidationError as error:
        raise ValueError(
            f"{entry['name']}: {'; '.join(str(problem) for problem in problems_of(error, RecipeSpec))}."
        ) from None


def _lines(text: str) -> list[str]:
    """Without empty ones and doubles."""
    return list(dict.fromkeys(line.strip() for line in text.splitlines() if line.strip()))


def _mark(kind: str, points: str) -> Mark | None:
    if not points.strip():
        return None
    numbers = [float(number) for number in _NUMBER.findall(points)]
    if kind not in MARK_KINDS or len(numbers) < 4 or len(numbers) % 2:
        raise ValueError("A mark needs two points or more, x and y by turns: for example 10, 20, 110, 90.")
    return Mark(kind=kind, points=tuple(zip(numbers[::2], numbers[1::2], strict=True)))
