"""Answers that were written before the gates were seen, each judged as its own recipe does."""

from collections.abc import Iterator

import pytest

from tests.pipeline import blind_answers, blind_degenerate, blind_ordinary
from tests.pipeline.as_recipes_judge import flags_of

_STEPS = frozenset({"asked", "phrases"})


def flags(recipe: str, way: str, question: str, text: str, **said: object) -> tuple[str, ...]:
    """Args:
    way: a style of the recipe, or a step of it, or "".
    """
    is_step = way in _STEPS or recipe == "grounding-of-caption"
    style = None if is_step or recipe == "qa-generate" else way or None
    return flags_of(recipe, text, step=way if is_step else "", style=style, question=question, **said)


def ordinary() -> Iterator[tuple[str, str, str, str]]:
    for (recipe, way), texts in (blind_ordinary.TEXTS | blind_answers.TEXTS).items():
        pairs = texts.items() if isinstance(texts, dict) else [("", text) for text in texts]
        yield from ((recipe, way, question, text) for question, text in pairs)


def test_of_ordinary_answers_one_in_a_hundred_at_most_is_flagged_by_its_recipe():
    flagged = {case: found for case in ordinary() if (found := flags(*case))}
    assert len(list(ordinary())) == 240
    assert len(flagged) <= 240 // 100, flagged


@pytest.mark.parametrize("place", list(blind_degenerate.TEXTS), ids=lambda place: "-".join(place[:3]))
def test_degenerate_answers_are_caught_by_their_recipe(place: tuple[str, str, str, str]):
    recipe, way, flag, question = place
    reason = "length" if flag == "output_truncated" else "stop"
    for text in blind_degenerate.TEXTS[place]:
        found = [flags(recipe, way, question, text, variant=variant, finish_reason=reason) for variant in (0, 1)]
        assert any(flag in one for one in found), (text[:60], found)
