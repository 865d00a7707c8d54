"""Whoever watches recipes sees each attempt, its text, and why it was sent back; the labels are the same."""

import asyncio
from typing import Any

from pipeline.app.live import LiveAnswers
from pipeline.recipes import make_recipes
from schemas.job import RecipeSpec
from schemas.rows import ImageRow, Label, RowImage
from tests.pipeline.outputs import Said, ScriptedView, ScriptedViews

ROW = ImageRow(
    sample_id="a",
    images=(RowImage(uri="/a.png", sha256="0" * 64, width_px=40, height_px=30, tiles_wide=1, tiles_high=1),),
    manifest_shard="",
    recipes=(),
)


class SpeakingView(ScriptedView):
    """Tells its answers word by word."""

    async def generate(self, text: Any, *, on_text: Any = None, **params: Any) -> Said:
        said = await super().generate(text, **params)
        if on_text is not None:
            for word in said.text.split(" "):
                on_text(f"{word} ")
        return said


def labelled(spec: RecipeSpec, *texts: str, watch: LiveAnswers | None = None) -> list[Label]:
    (recipe,) = (one for one in make_recipes([spec], checkpoint_digest="0") if one.is_written)
    return asyncio.run(recipe.label(ScriptedViews(SpeakingView(*texts)), ROW, {}, watch))


def test_answer_that_a_gate_sends_back_is_seen_with_the_reason_and_the_next_attempt():
    live = LiveAnswers()
    labels = labelled(RecipeSpec(name="caption"), "", "A red house.", watch=live)
    (answer,) = live.answers()
    assert answer.attempt.number == 2
    assert answer.attempt.max_attempts == 3
    assert answer.text == "A red house. "
    assert answer.is_done
    assert [why.partition(":")[0] for why in answer.sent_back] == ["empty"]
    assert labels == labelled(RecipeSpec(name="caption"), "", "A red house.")


def test_steps_and_questions_are_seen_one_by_one():
    live = LiveAnswers()
    labelled(RecipeSpec(name="grounding-of-caption"), "A dog and a cat.", "a dog\na cat", "no box", watch=live)
    seen = [(one.attempt.step, one.attempt.item, one.attempt.question) for one in live.answers()]
    assert seen == [("caption", 0, ""), ("phrases", 0, ""), ("answer", 0, "a dog"), ("answer", 1, "a cat")]


def test_version_grows_with_every_change():
    live = LiveAnswers()
    before = live.version
    labelled(RecipeSpec(name="caption"), "A red house.", watch=live)
    assert live.version == before + 5, "it begins, three words come, and it ends"
