"""Which of a recipe's words a sample is asked in: variants, styles, and hints where there is something to quote."""

import asyncio
import dataclasses
from collections import Counter

import pytest

from pipeline.recipes import load_recipe, make_recipes
from pipeline.recipes.recipe import needed_facts
from schemas.recipe_specs import RecipeSpec
from tests.pipeline.asked import ask, data, put_recipe, row_of
from tests.pipeline.outputs import ScriptedView, ScriptedViews

CAPTION = load_recipe("caption").file.last
SAMPLES = [row_of(f"sample {number}") for number in range(200)]
STYLED = """
steps:
  - styles:
      plain: ["Describe it.", "What is it?"]
      curt: {prompts: ["In a word?"], final_answer: "Word:"}
"""


def caption(**values) -> RecipeSpec:
    return RecipeSpec(name="caption", **values)


def variants(spec, rows=SAMPLES) -> list[int]:
    return [ask(spec, row)[0][0].variant for row in rows]


def prompt_of(spec, row=None, earlier=None) -> str:
    return ask(spec, row, earlier=earlier)[0][0].prompt


def earlier_ocr(text):
    return {"ocr": ask(RecipeSpec(name="ocr"), says=text)[0]}


def test_all_variants_are_used_about_equally_often():
    counts = Counter(variants(caption()))
    assert set(counts) == set(range(len(CAPTION.styles["detailed"].prompts)))
    assert min(counts.values()) > 200 / len(counts) / 2


def test_label_tells_its_variant_and_the_words_of_it():
    for row in SAMPLES[:20]:
        (label,), view = ask(caption(), row)
        assert view.prompts == [(CAPTION.styles["detailed"].prompts[label.variant],)]
        assert label.instruction == label.prompt == view.prompts[0][0]


def test_sample_has_the_same_variant_wherever_it_lies_and_another_with_another_seed():
    moved = [dataclasses.replace(row, sample_id="x", place="t.jsonl#3") for row in SAMPLES]
    assert variants(caption(), moved) == variants(caption())
    assert variants(caption(seed=1)) != variants(caption())


def test_two_ids_of_one_recipe_draw_for_themselves():
    assert variants(caption(id="other")) != variants(caption())


def test_questions_of_one_sample_draw_for_themselves(tmp_path):
    spec = RecipeSpec(
        name=put_recipe(tmp_path, "steps: [{each: questions, prompts: ['A: {question}', 'B: {question}']}]\ntable: qa"),
        questions=tuple(f"Why {number}?" for number in range(20)),
    )
    labels, _ = ask(spec)
    assert {label.variant for label in labels} == {0, 1}
    assert all(label.prompt == f"{'AB'[label.variant]}: {label.values['question']}" for label in labels)


@pytest.mark.parametrize("wanted", [(1,), (0, 2)])
def test_job_narrows_the_choice_among_variants(wanted):
    assert set(variants(caption(variants=wanted))) == set(wanted)


def test_job_chooses_the_style_and_the_first_one_is_the_default(tmp_path):
    mine = put_recipe(tmp_path, STYLED)
    told = {ask(RecipeSpec(name=mine), row)[0][0].prompt for row in SAMPLES[:20]}
    assert told == {"Describe it.", "What is it?"}
    (label,), _ = ask(RecipeSpec(name=mine, style="curt"))
    assert (label.prompt, label.values["style"]) == ("In a word?", "curt")


def test_styles_of_captions_ask_in_words_of_their_own():
    words = [prompt for style in CAPTION.styles.values() for prompt in style.prompts]
    assert len(words) == len(set(words))
    for style in CAPTION.styles:
        label = ask(caption(style=style))[0][0]
        assert label.prompt in CAPTION.styles[style].prompts
        assert label.values["style"] == style


@pytest.mark.parametrize(
    ("says", "reasoning", "answer", "flags"),
    [
        ("It flies.\nAnswer: a bird", "It flies.", "a bird", ()),
        ("Answer: a dog?\nNo, it flies.\n**ANSWER: a bird**", "Answer: a dog?\nNo, it flies.", "a bird", ()),
        ("Answer: a bird", "", "a bird", ()),
        ("It flies. The Answer: is a bird", "It flies. The Answer: is a bird", "", ("final_answer_absent",)),
        ("It flies.\nAnswer: ", "It flies.\nAnswer:", "", ("final_answer_absent",)),
    ],
)
def test_what_a_style_ends_its_reasoning_with_parts_it_from_the_answer(tmp_path, says, reasoning, answer, flags):
    text = "table: qa\nsteps: [{each: questions, styles: {steps: {prompts: ['{question}'], final_answer: 'Answer:'}}}]"
    spec = RecipeSpec(name=put_recipe(tmp_path, text), questions=("What?",))
    (label,) = ask(spec, says=says)[0]
    assert (label.values["reasoning"], label.values["answer"], label.flags) == (reasoning, answer, flags)


def test_hints_are_added_in_the_order_of_the_file_and_as_data():
    row = row_of(original_text="A <image>.", metadata=(("place", "Ghent"), ("taken", "2024"), ("camera", "K")))
    spec = caption(hints=("place", "metadata", "original", "ocr"), variants=(0,))
    _, view = ask(spec, row, earlier=earlier_ocr("EXIT"))
    parts = [part for part in view.prompts[0] if isinstance(part, dict)]
    assert parts == [data("EXIT"), data("A <image>."), data("taken: 2024; camera: K"), data("Ghent")]


def test_place_is_quoted_only_where_the_job_asks_for_it():
    row = row_of(metadata=(("place", "Ghent"), ("taken", "2024")))
    assert "Ghent" not in prompt_of(caption(hints=("metadata",)), row)
    assert "2024" not in prompt_of(caption(hints=("place",)), row)


def test_instruction_is_the_prompt_without_what_was_quoted():
    (label,) = ask(caption(hints=("ocr",), variants=(0,)), earlier=earlier_ocr("EXIT"))[0]
    assert label.instruction == "Describe the image in detail."
    assert label.prompt.startswith(f"{label.instruction} Where it helps")
    assert label.prompt.endswith("\nEXIT")


@pytest.mark.parametrize("hints", [("metadata",), ("place",), ("original",), ("ocr",)])
def test_hint_without_anything_to_quote_says_nothing(hints):
    prompt = prompt_of(caption(hints=hints, variants=(0,)), earlier=earlier_ocr(""))
    assert prompt == "Describe the image in detail."


def test_default_hints_are_added_unless_the_job_says_otherwise(tmp_path):
    text = "steps: [{prompts: [It.], hints: {place: ' At {place}', ocr: ' Says {ocr}'}, default_hints: [place]}]"
    mine, row = put_recipe(tmp_path, text), row_of(metadata=(("place", "Ghent"),))
    earlier = earlier_ocr("EXIT")
    assert prompt_of(RecipeSpec(name=mine), row, earlier) == "It. At Ghent"
    assert prompt_of(RecipeSpec(name=mine, hints=()), row, earlier) == "It."
    assert prompt_of(RecipeSpec(name=mine, hints=("ocr",)), row, earlier) == "It. Says EXIT"
    loaded = load_recipe(mine)
    assert needed_facts(loaded, RecipeSpec(name=mine)) == {"place"}
    assert needed_facts(loaded, RecipeSpec(name=mine, hints=("ocr",))) == set()


def made(*specs):
    return {recipe.name: recipe for recipe in make_recipes(specs, checkpoint_digest="c")}


def test_recipe_that_is_quoted_and_not_listed_runs_before_and_is_not_written():
    recipes = made(caption(hints=("ocr",)))
    assert list(recipes) == ["ocr", "caption"]
    assert {name: recipe.is_written for name, recipe in recipes.items()} == {"ocr": False, "caption": True}
    assert recipes["caption"].needs == {"ocr": "ocr"}
    assert list(made(caption())) == ["caption"]


def test_job_that_lists_the_quoted_recipe_too_has_the_same_captions():
    unlisted, listed = made(caption(hints=("ocr",))), made(RecipeSpec(name="ocr"), caption(hints=("ocr",)))
    assert unlisted["caption"].digest == listed["caption"].digest
    assert listed["ocr"].is_written


def test_hint_takes_the_recipe_of_that_id_before_one_of_that_name():
    page, other = RecipeSpec(name="ocr", id="page", seed=1), RecipeSpec(name="caption", id="ocr")
    assert made(page, caption(hints=("ocr",)))["caption"].needs == {"ocr": "page"}
    assert made(page, other, caption(hints=("ocr",)))["caption"].needs == {"ocr": "ocr"}


def test_caption_that_quotes_a_caption_quotes_what_it_says():
    short = caption(id="ocr", style="short")
    recipes = made(short, caption(hints=("ocr",), variants=(0,)))
    quoted = asyncio.run(recipes["ocr"].label(ScriptedViews(ScriptedView("A dog.")), row_of(), {}))
    view = ScriptedView()
    asyncio.run(recipes["caption"].label(ScriptedViews(view), row_of(), {"ocr": quoted}))
    assert view.prompts[0][-1] == data("A dog.")
