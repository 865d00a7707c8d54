"""Every built-in recipe on files, from their bytes to labels: what it asks, what it makes of the answers, and what each
label says of how it was made."""

import asyncio
import json
from collections.abc import Callable
from contextlib import closing
from typing import Any

import pyarrow as pa
import pytest

from model.constraint_specs import BoxList, Choice
from model.prompt import Processor
from pipeline.fetch import FetchImage
from pipeline.label import LabelImage, ReplicaConfig
from pipeline.prepare import TileImage
from pipeline.quality import Judged, judge
from pipeline.recipes import built_in_names, check_recipes, load_recipe, make_recipes
from pipeline.recipes.fit import keys_of
from schemas.errors import ErrorKind
from schemas.job import EngineSpec
from schemas.recipe_specs import RecipeSpec
from schemas.rows import TILES_COLUMN, ImageRow, Label, RowImage, Turn, rows_of, to_columns
from schemas.tables import OWN
from tests.pipeline.exact_engine import ExactEngine, text_of_message
from tests.pipeline.pictures import encode, four_corners
from tests.pipeline.recipe_cases import ARROW, CASES, HEIGHT, PAGE, PAIRS, PROGRAM, TABLE, WIDTH


@pytest.fixture(scope="module")
def pictures(tmp_path_factory) -> tuple[RowImage, ...]:
    """The first and the third are wide, the second is tall."""
    folder = tmp_path_factory.mktemp("pictures")
    for name, size in (("wide", (WIDTH, HEIGHT)), ("tall", (HEIGHT, WIDTH))):
        (folder / f"{name}.png").write_bytes(encode(four_corners(*size), "PNG"))
    return tuple(RowImage(uri=str(folder / f"{name}.png")) for name in ("wide", "tall", "wide"))


@pytest.fixture(scope="module")
def tiler():
    resolutions = Processor.from_checkpoint("nano").config.candidate_resolutions
    tiler = TileImage(candidate_resolutions=resolutions, max_pixels=10**6, mark_recipes=("visual-prompt",))
    with closing(tiler):
        yield tiler


@pytest.fixture
def run_stages(pictures, tiler, monkeypatch) -> Callable[..., ImageRow]:
    """One sample through fetching, tiling and labelling, with an engine that is there already."""

    def run(engine: Any, *entries: dict[str, Any], num_images: int = 1, **fields: Any) -> ImageRow:
        specs = [RecipeSpec(**entry) for entry in entries]
        row = ImageRow(
            sample_id="a",
            images=pictures[:num_images],
            manifest_shard="shard-00000.parquet",
            recipes=tuple(check_recipes(specs)),
            **fields,
        )
        fetched = FetchImage(max_bytes=10**7, image_column=None, num_threads=1)(to_columns([row]))
        tiled = tiler(fetched)
        monkeypatch.setattr(ReplicaConfig, "load", lambda config: engine)
        recipes = make_recipes(specs, checkpoint_digest="c")
        stage = LabelImage(replica=ReplicaConfig(checkpoint="nano", engine=EngineSpec()), recipes=recipes)
        return asyncio.run(stage.label(rows_of(tiled)[0], tiled[TILES_COLUMN][0]))

    return run


@pytest.fixture
def run_case(run_stages) -> Callable[[str], tuple[list[Label], ExactEngine]]:
    def run(name: str) -> tuple[list[Label], ExactEngine]:
        case, engine = CASES[name], ExactEngine(*CASES[name].answers)
        row = run_stages(engine, *case.entries, num_images=case.num_images, **case.row)
        assert (row.error, row.recipe_errors) == (None, ())
        return [label for label in row.labels if label.recipe == name], engine

    return run


def test_every_built_in_recipe_has_a_case():
    assert sorted(CASES) == built_in_names()


@pytest.mark.parametrize("name", CASES)
def test_answers_become_the_columns_of_the_table(name: str, run_case):
    labels, _ = run_case(name)

    assert [label.values for label in labels] == CASES[name].values
    assert [label.item for label in labels] == list(range(len(labels)))
    for label in labels:
        schema = pa.schema(OWN[label.table])
        assert set(label.values) == set(schema.names)
        assert pa.Table.from_pylist([dict(label.values)], schema=schema).num_rows == 1


@pytest.mark.parametrize("name", CASES)
def test_every_label_says_how_it_was_made(name: str, run_case):
    labels, engine = run_case(name)
    specs = [RecipeSpec(**entry) for entry in CASES[name].entries]
    digests = {recipe.name: recipe.digest for recipe in make_recipes(specs, checkpoint_digest="c")}
    file = load_recipe(name).file
    style = next(iter(file.last.ways.values()))

    for label in labels:
        assert (label.table, label.recipe_digest) == (file.table, digests[name])
        assert label.prompt in engine.prompts
        assert label.prompt.startswith(label.instruction)
        assert 0 <= label.variant < len(style.prompts)
        begin = style.prompts[label.variant].partition("{")[0]
        assert label.instruction.startswith(begin)
        assert (label.attempts, label.flags) == (1, ())
        parameters = json.loads(label.parameters)
        assert parameters["max_new_tokens"] == file.last.generation.max_new_tokens
        assert {"temperature", "top_p", "repetition_penalty", "seed", "constrained"} <= set(parameters)


@pytest.mark.parametrize("name", built_in_names())
def test_ladder_is_bounded_and_every_gate_that_asks_for_another_try_can_have_one(name: str):
    for step in load_recipe(name).file.steps:
        assert len(step.retries) <= 2
        gates = [getattr(step.gates, gate) for gate in type(step.gates).model_fields]
        wants_more = any(getattr(gate, "then", "flag") != "flag" for gate in gates if gate is not None)
        assert wants_more == bool(step.retries)


@pytest.mark.parametrize("name", [name for name in built_in_names() if load_recipe(name).file.table == "ocr"])
def test_prompt_given_back_is_no_transcription_and_what_an_image_may_say_is_one(name: str):
    step = load_recipe(name).file.last
    told = {"finish_reason": "stop", "mean_logprob": -0.3, "num_output_tokens": 40}
    for style in step.ways.values():
        for prompt in style.prompts:
            found = judge(Judged(text=prompt, instruction=prompt, **told), step.gates)
            assert "echo" in [finding.flag for finding in found]
    if step.gates.code is None:
        form = "Dear [Name],\nYes.\nUser: [Title] of [Object]\nAssistant: no\n[insert text here]"
        assert judge(Judged(text=form, instruction=step.prompts[0], **told), step.gates) == ()


@pytest.mark.parametrize("name", built_in_names())
def test_prompts_of_one_style_differ(name: str):
    for step in load_recipe(name).file.steps:
        for style in step.ways.values():
            assert len(set(style.prompts)) == len(style.prompts)


@pytest.mark.parametrize(
    ("name", "notation"),
    [
        ("ocr", "plain"),
        ("ocr-document", "plain"),
        ("ocr-scene", "plain"),
        ("ocr-markdown", "markdown"),
        ("ocr-table", "html"),
        ("ocr-formula", "latex"),
    ],
)
def test_format_of_a_transcription_follows_from_its_recipe(name: str, notation: str):
    assert load_recipe(name).file.values == {"format": notation}


@pytest.mark.parametrize(
    ("name", "broken", "whole"),
    [
        ("ocr-table", "<table><tr><td>1</td></tr>", TABLE),
        ("ocr-formula", r"\frac{a}{b", r"\frac{a}{b}"),
        ("chart-to-code", "```python\nplt.bar([1, 2\n```", f"```python\n{PROGRAM}\n```"),
        ("web-to-code", "```html\n<div><p>Shop\n```", f"```html\n{PAGE}\n```"),
    ],
)
def test_code_that_cannot_be_read_is_written_again(name: str, broken: str, whole: str, run_stages):
    engine = ExactEngine(("", broken), ("", whole))
    (label,) = run_stages(engine, {"name": name}).labels

    assert (label.attempts, label.flags) == (2, ())
    assert json.loads(label.parameters)["temperature"] > 0
    assert len({asked.params["seed"] for asked in engine.asked}) == 2


def test_boxes_in_context_are_bound_to_their_form_when_nothing_else_helps(run_stages):
    label_text = "object of the same category"
    bound = f"<|ref|>{label_text}<|/ref|><|det|>[[0, 0, 100, 100]]<|/det|>"
    engine = ExactEngine(("", "It is on the left."), ("", "<|det|>[[0, 50, 55, 9999]]<|/det|>"), ("", bound))
    (label,) = run_stages(engine, {"name": "in-context-grounding"}, num_images=2).labels

    assert [asked.params["constraint"] for asked in engine.asked] == [None, None, BoxList(label=label_text)]
    assert label.attempts == 3
    assert [one["label"] for one in label.values["boxes"]] == [label_text]


@pytest.mark.parametrize("num_images", [1, 3])
def test_in_context_grounding_speaks_of_two_images_and_leaves_other_samples_alone(num_images: int, run_stages):
    engine = ExactEngine()
    row = run_stages(engine, {"name": "in-context-grounding"}, num_images=num_images)

    assert (row.labels, row.recipe_errors, engine.asked) == ((), (), [])


def test_reasoning_ends_with_its_answer_or_is_asked_for_again(run_stages):
    engine = ExactEngine(
        ("total", "There are two rows, so it is 12."),
        ("total", "Row 1 has 5.\nRow 2 has 7.\n\nFinal answer: 12"),
        ("", "5 7"),
    )
    entry = {"name": "qa-regenerate", "style": "reasoning"}
    (label,) = run_stages(engine, entry, turns=PAIRS[:3]).labels

    assert (label.attempts, label.flags) == (2, ())
    assert (label.values["reasoning"], label.values["answer"]) == ("Row 1 has 5.\nRow 2 has 7.", "12")


def test_reasoning_that_never_ends_with_an_answer_is_kept_and_flagged(run_stages):
    engine = ExactEngine(("total", "There are two rows, so it is 12."), ("", "5 7"))
    entry = {"name": "qa-regenerate", "style": "reasoning"}
    (label,) = run_stages(engine, entry, turns=PAIRS[:3]).labels

    assert label.flags == ("final_answer_absent",)
    assert len([prompt for prompt in engine.prompts if "total" in prompt]) == 3


def test_english_answer_to_a_chinese_question_is_flagged_and_asked_for_again(run_stages):
    turns = (Turn(role="user", text="图片中的人在做什么?", images=(0,)), Turn(role="assistant", text="跑步"))
    engine = ExactEngine(
        ("图片中", "The person in this picture is running along the river in the morning."),
        ("图片中", "图片中的人早晨正沿着河边跑步。"),
        ("", ""),
    )
    (label,) = run_stages(engine, {"name": "qa-regenerate"}, turns=turns).labels

    assert (label.values["answer"], label.attempts, label.flags) == ("图片中的人早晨正沿着河边跑步。", 2, ())
    assert engine.prompts[-1].endswith("Answer in the language of the question.")


def test_turns_are_answered_in_sight_of_the_new_answers_and_of_the_text_in_the_image(run_case):
    labels, engine = run_case("qa-regenerate")

    first, second = (asked.messages for asked in engine.asked[1:])
    assert [message["role"] for message in second] == ["system", "user", "assistant", "user", "assistant"]
    assert text_of_message(second[2]) == "The total is 12."
    assert text_of_message(first[1]) == labels[0].prompt
    assert labels[0].prompt == "What is the total?\nText that can be read in the image:\nTOTAL 12 TAX 2"


def test_text_that_is_not_wanted_as_a_hint_is_not_read(run_stages):
    engine = ExactEngine(("total", "12"), ("tax", "2"))
    row = run_stages(engine, {"name": "qa-regenerate", "hints": []}, turns=PAIRS)

    assert [label.prompt for label in row.labels] == ["What is the total?", "And the tax?"]
    assert len(engine.opened) == 1


def test_conversation_without_images_is_answered_from_text_alone(run_stages):
    turns = (Turn(role="user", text="What is a prime number?"), Turn(role="assistant", text="?"))
    engine = ExactEngine(("prime", "One with two divisors."))
    (label,) = run_stages(engine, {"name": "qa-regenerate"}, turns=turns, num_images=0).labels

    assert (label.values["answer"], label.values["question_images"], label.flags) == ("One with two divisors.", [], ())
    assert engine.opened == [()]


def test_page_that_nothing_can_be_asked_about_is_quarantined(run_stages):
    engine = ExactEngine(("questions", ""), ("", "some text"))
    row = run_stages(engine, {"name": "qa-generate"})

    assert row.labels == ()
    assert [(name, error.kind) for name, error in row.recipe_errors] == [("qa-generate", ErrorKind.ANSWER_REJECTED)]


def test_every_mark_is_looked_at_in_a_picture_of_its_own(run_case):
    _, engine = run_case("visual-prompt")

    assert [len(images) for images in engine.opened] == [1, 1]
    red, yellow = (asked.images[0].tiles for asked in engine.asked)
    assert red.shape == yellow.shape
    assert (red != yellow).any()


def test_question_of_the_job_is_asked_about_what_is_marked(run_stages):
    engine = ExactEngine(("What color is it?", "Blue."))
    entry = {"name": "visual-prompt", "marks_from": "marks", "style": "ask", "questions": ["What color is it?"]}
    (label,) = run_stages(engine, entry, marks=(ARROW,)).labels

    assert (label.values["question"], label.values["answer"]) == ("What color is it?", "Blue.")
    assert "red arrow" in label.prompt


def test_score_sees_no_image_and_can_only_be_a_digit(run_case):
    _, engine = run_case("score")

    scored = engine.asked[-1]
    assert scored.images == ()
    assert scored.params["constraint"] == Choice(options=("1", "2", "3", "4", "5"))
    assert "A house by the sea." in scored.text


@pytest.fixture(scope="module")
def nano():
    engine = ReplicaConfig(checkpoint="nano", engine=EngineSpec(device="cpu", dtype="float32")).load()
    yield engine
    engine.close()


SEVERAL_PROMPTS = ("grounding", "grounding-of-caption", "in-context-grounding", "qa-regenerate", "qa-generate", "score")


@pytest.mark.parametrize("name", [*SEVERAL_PROMPTS, "visual-prompt"])
def test_real_engine_encodes_the_images_once_whatever_is_asked(name: str, nano, run_stages):
    """What nano says of such pictures means nothing; the form of its labels does."""
    entries = [{**entry, "max_new_tokens": 6, **bounds_of(entry["name"])} for entry in CASES[name].entries]
    before = nano.stats().num_tiles
    row = run_stages(nano, *entries, num_images=CASES[name].num_images, **CASES[name].row)

    assert row.error is None
    assert {error.kind for _, error in row.recipe_errors} <= {ErrorKind.ANSWER_REJECTED}
    assert all(set(label.values) == {field.name for field in OWN[label.table]} for label in row.labels)
    looked_at = (
        row.marked_grids if name == "visual-prompt" else [(one.tiles_wide, one.tiles_high) for one in row.images]
    )
    assert nano.stats().num_tiles - before == sum(1 + wide * high for wide, high in looked_at)


def bounds_of(name: str) -> dict[str, Any]:
    """A list of boxes needs room for its form."""
    known = keys_of(load_recipe(name).file)
    count = {"count": 2} if "count" in known else {}
    return {**count, "max_new_tokens": 40, "max_boxes": 1} if "max_boxes" in known else count
