import asyncio
import dataclasses
import hashlib
import os

import numpy as np
import pytest
import torch
from PIL import Image

from model.engine import EngineDiedError
from model.nano.scenes import render_scene
from model.prompt import Processor
from pipeline.in_hand import InHand
from pipeline.label import LabelImage, ReplicaConfig, resolve_device, resolve_dtype
from pipeline.prepare import TileImage
from pipeline.recipes import make_recipes
from pipeline.worker_deaths import Actor, WorkerDeaths
from schemas.errors import ErrorKind, RowError
from schemas.job import EngineSpec, RecipeSpec
from schemas.rows import CARRIED_COLUMN, ENGINE_COLUMN, ROW_COLUMN, TILES_COLUMN, ImageRow, Turn, rows_of, to_columns
from tests.pipeline.asked import put_recipe
from tests.pipeline.pictures import encode, four_corners
from tests.pipeline.rows import one_image_row

OCR = RecipeSpec(name="ocr", variants=(0,), max_new_tokens=5)
CAPTION = RecipeSpec(name="caption", max_new_tokens=5, hints=("ocr",))
QA = RecipeSpec(name="qa", max_new_tokens=4, questions=("How many?", "Why?"))
GROUNDING = RecipeSpec(name="grounding", max_new_tokens=40, queries=("the dog",))
ALL = (CAPTION, GROUNDING, OCR, QA)
ENDLESS = "Why? " * 3000
"""More tokens than nano's context has."""


@pytest.fixture(scope="module")
def engine():
    engine = ReplicaConfig(checkpoint="nano", engine=EngineSpec(device="cpu", dtype="float32")).load()
    yield engine
    engine.close()


@pytest.fixture
def stage_of(engine, monkeypatch):
    """A stage with these recipes; all of them share one engine, or the door that a test puts before it."""

    def make(*specs, door=None):
        monkeypatch.setattr(ReplicaConfig, "load", lambda config: door or engine)
        recipes = make_recipes(specs, checkpoint_digest="c")
        return LabelImage(replica=ReplicaConfig(checkpoint="nano", engine=EngineSpec()), recipes=recipes)

    return make


def row_of(name="a", recipes=("caption", "grounding", "ocr", "qa"), **fields) -> ImageRow:
    return one_image_row(
        **{
            "sample_id": name,
            "image_uri": f"/photos/{name}.png",
            "version": "1",
            "manifest_shard": "shard-00000.parquet",
            "recipes": tuple(recipes),
            "carried": name.encode(),
            "image_sha256": hashlib.sha256(name.encode()).hexdigest(),
            **fields,
        }
    )


def tiled(*rows: ImageRow, picture: Image.Image | None = None) -> dict:
    """A block as the tiler hands it on: each row with pictures of its own size, or all with the same one."""
    resolutions = Processor.from_checkpoint("nano").config.candidate_resolutions
    encoded = [
        [encode(picture or four_corners(60 + 60 * number + 20 * place, 120), "PNG") for place in range(len(row.images))]
        for number, row in enumerate(rows)
    ]
    return TileImage(candidate_resolutions=resolutions, max_pixels=1_000_000)(to_columns(rows, encoded=encoded))


async def collected(stage, block):
    return [labelled async for labelled in stage(block)]


def label(stage, *rows: ImageRow, picture: Image.Image | None = None) -> list[ImageRow]:
    (block,) = asyncio.run(collected(stage, tiled(*rows, picture=picture)))
    assert set(block) == {ROW_COLUMN, CARRIED_COLUMN, ENGINE_COLUMN}
    return rows_of(block)


def labels_by_recipe(row: ImageRow):
    return {name: [label.item for label in row.labels if label.recipe == name] for name in row.recipes}


def kinds(row: ImageRow):
    return {name: error.kind for name, error in row.recipe_errors}


class BrokenDoor:
    """An engine whose answers to prompts with a certain text are errors; everything else is answered by a real one."""

    def __init__(self, engine, text, error):
        self._engine, self._text, self._error = engine, text, error

    def open(self, images):
        return BrokenView(self._engine.open(images), self._text, self._error)

    def stats(self):
        return self._engine.stats()


class BrokenView:
    def __init__(self, view, text, error):
        self._view, self._text, self._error = view, text, error

    async def __aenter__(self):
        await self._view.__aenter__()
        return self

    async def __aexit__(self, *exc_info):
        await self._view.__aexit__(*exc_info)

    async def generate(self, prompt, **params):
        if any(self._text in str(part) for part in prompt):
            raise self._error
        return await self._view.generate(prompt, **params)


def test_every_recipe_labels_the_image(stage_of):
    (row,) = label(stage_of(*ALL), row_of())
    assert labels_by_recipe(row) == {"caption": [0], "grounding": [0], "ocr": [0], "qa": [0, 1]}
    assert (row.error, row.recipe_errors) == (None, ())
    for made in row.labels:
        assert made.finish_reason in ("stop", "length")
        assert 1 <= made.num_output_tokens <= (40 if made.recipe == "grounding" else 5)
        assert made.mean_logprob < 0


def test_row_keeps_all_that_it_brought(stage_of):
    before = rows_of(tiled(row_of(flags=("exif_rotated",))))[0]
    (after,) = label(stage_of(OCR), row_of(flags=("exif_rotated",), recipes=("ocr",)))
    assert dataclasses.replace(after, labels=(), recipes=before.recipes) == before
    assert after.carried == b"a"


def test_rows_come_back_in_order_and_as_each_would_alone(stage_of):
    rows = [row_of(name) for name in "abcd"]
    together = label(stage_of(*ALL), *rows)
    assert [row.sample_id for row in together] == list("abcd")

    async def one_by_one():
        stage, block = stage_of(*ALL), tiled(*rows)
        return [await stage.label(row, tiles) for row, tiles in zip(rows_of(block), block[TILES_COLUMN], strict=True)]

    for row, alone in zip(together, asyncio.run(one_by_one()), strict=True):
        assert texts(row) == texts(alone)


def texts(row: ImageRow):
    return [(made.recipe, made.item, made.values) for made in row.labels]


def test_blocks_in_flight_together_do_not_mix(stage_of):
    stage = stage_of(OCR, QA)
    blocks = [tiled(row_of(name, ("ocr", "qa")), row_of(name * 2, ("ocr", "qa"))) for name in "abc"]

    async def all_at_once():
        return await asyncio.gather(*(collected(stage, block) for block in blocks))

    done = [[row.sample_id for row in rows_of(block)] for (block,) in asyncio.run(all_at_once())]
    assert done == [["a", "aa"], ["b", "bb"], ["c", "cc"]]


def test_row_that_failed_earlier_passes_through_unchanged(stage_of):
    missing = row_of().failed(RowError(kind=ErrorKind.MISSING, message="no such object"))
    before, failed, after = label(stage_of(OCR), row_of("b", ("ocr",)), missing, row_of("c", ("ocr",)))
    assert failed == missing
    assert len(before.labels) == len(after.labels) == 1


def test_block_without_rows_stays_one(stage_of):
    assert label(stage_of(OCR)) == []


def test_question_longer_than_the_context_fails_its_recipe_alone(stage_of):
    long = RecipeSpec(name="qa", max_new_tokens=4, questions=("Why?", ENDLESS))
    (row,) = label(stage_of(OCR, long), row_of(recipes=("ocr", "qa")))
    assert labels_by_recipe(row) == {"ocr": [0], "qa": []}
    assert kinds(row) == {"qa": ErrorKind.CONTEXT_TOO_LONG}
    assert "context" in row.recipe_errors[0][1].message
    assert row.error is None


def test_recipe_that_fails_leaves_the_others(stage_of, engine):
    door = BrokenDoor(engine, "How many?", RuntimeError("CUDA out of memory\nTried to allocate"))
    (row,) = label(stage_of(*ALL, door=door), row_of())
    assert labels_by_recipe(row) == {"caption": [0], "grounding": [0], "ocr": [0], "qa": []}
    assert row.recipe_errors == (
        ("qa", RowError(kind=ErrorKind.ENGINE_ERROR, message="RuntimeError: CUDA out of memory")),
    )


def test_recipe_that_fails_takes_those_that_read_it_along(stage_of, engine):
    door = BrokenDoor(engine, "Read all the text", RuntimeError("out of memory"))
    (row,) = label(stage_of(*ALL, door=door), row_of())
    assert labels_by_recipe(row) == {"caption": [], "grounding": [0], "ocr": [], "qa": [0, 1]}
    assert dict(row.recipe_errors)["caption"].message == (
        "the recipe ocr, which it reads, failed: RuntimeError: out of memory"
    )


def test_one_image_that_fails_leaves_its_neighbours(stage_of, engine):
    door = BrokenDoor(engine, "only of b", RuntimeError())
    spec = RecipeSpec(name="qa", max_new_tokens=3, questions_from="q")
    rows = [row_of(name, ("qa",), questions=(f"only of {name}",)) for name in "abc"]
    a, b, c = label(stage_of(spec, door=door), *rows)
    assert [len(row.labels) for row in (a, b, c)] == [1, 0, 1]
    assert b.recipe_errors[0][1].message == "RuntimeError: RuntimeError"


def test_image_that_cannot_be_opened_fails_as_a_whole(stage_of):
    """Tiles of another checkpoint's number, as a broken configuration would make them."""
    stage, block = stage_of(*ALL), tiled(row_of())
    block[TILES_COLUMN][0] = block[TILES_COLUMN][0][:2]
    (labelled,) = asyncio.run(collected(stage, block))
    (row,) = rows_of(labelled)
    assert row.error is not None
    assert row.error.kind is ErrorKind.ENGINE_ERROR
    assert row.error.message.startswith("AssertionError: 2 tiles")
    assert row.labels == ()


def test_image_that_cannot_be_opened_fails_all_recipes_that_look_at_it(stage_of):
    """Tiles of another checkpoint's size."""
    stage, block = stage_of(*ALL), tiled(row_of())
    block[TILES_COLUMN][0] = np.zeros((3, 28, 28, 3), dtype=np.uint8)
    (labelled,) = asyncio.run(collected(stage, block))
    (row,) = rows_of(labelled)
    assert kinds(row) == dict.fromkeys(row.recipes, ErrorKind.ENGINE_ERROR)
    assert dict(row.recipe_errors)["qa"].message.startswith("ValueError: ")
    assert row.labels == ()


def test_hint_that_an_earlier_run_committed_is_read_again_but_not_labelled_again(stage_of):
    (both,) = label(stage_of(OCR, CAPTION), row_of(recipes=("ocr", "caption")))
    (caption_only,) = label(stage_of(OCR, CAPTION), row_of(recipes=("caption",)))
    assert labels_by_recipe(caption_only) == {"caption": [0]}
    assert {made.recipe for made in caption_only.labels} == {"caption"}
    caption_of = {row.recipes: row.labels[-1].prompt for row in (both, caption_only)}
    assert len(set(caption_of.values())) == 1


def test_hint_that_fails_when_it_is_read_again_fails_the_caption_alone(stage_of, engine):
    door = BrokenDoor(engine, "Read all the text", RuntimeError("out of memory"))
    (row,) = label(stage_of(OCR, CAPTION, door=door), row_of(recipes=("caption",)))
    assert kinds(row) == {"caption": ErrorKind.ENGINE_ERROR}


def test_recipe_that_is_quoted_and_not_listed_runs_and_is_not_labelled(stage_of):
    picture = next(scene for scene in map(render_scene, range(100)) if scene.text).image
    (listed,) = label(stage_of(RecipeSpec(name="ocr"), CAPTION), row_of(recipes=("ocr", "caption")), picture=picture)
    (row,) = label(stage_of(CAPTION), row_of(recipes=("caption",)), picture=picture)
    assert [made.recipe for made in row.labels] == ["caption"]
    assert row.recipe_errors == ()
    assert row.labels[0].prompt.endswith(listed.labels[0].values["text"])
    assert row.labels[0] == listed.labels[1]


REJECTING = """
name: ocr
table: ocr
steps:
  - prompts: [Read all the text in the image]
    generation: {max_new_tokens: 2}
    gates: {truncated: {then: reject}}
    retries: [{temperature: 1}]
"""


def test_recipe_that_a_gate_rejects_is_quarantined_and_those_that_quote_it_go_on_without(stage_of, tmp_path):
    ocr = RecipeSpec(name=put_recipe(tmp_path, REJECTING))
    picture = next(scene for scene in map(render_scene, range(100)) if scene.text).image
    (row,) = label(stage_of(ocr, CAPTION), row_of(recipes=("ocr", "caption")), picture=picture)
    assert labels_by_recipe(row) == {"ocr": [], "caption": [0]}
    assert kinds(row) == {"ocr": ErrorKind.ANSWER_REJECTED}
    assert row.recipe_errors[0][1].message.startswith("truncated: cut off after 2 tokens; the answer begins")
    (caption,) = row.labels
    assert "without_ocr" in caption.flags
    assert "Where it helps" not in caption.prompt

    again = row_of(recipes=("caption",))  # an earlier run has put the other one into quarantine
    assert label(stage_of(ocr, CAPTION), again, picture=picture)[0].labels == row.labels


def test_recipe_with_two_ids_is_labelled_twice(stage_of):
    short = RecipeSpec(name="caption", id="short", style="short", max_new_tokens=3)
    (row,) = label(stage_of(CAPTION, short), row_of(recipes=("caption", "short")))
    assert labels_by_recipe(row) == {"caption": [0], "short": [0]}
    assert {made.recipe: made.values["style"] for made in row.labels} == {"caption": "detailed", "short": "short"}


TURNS = (
    Turn(role="system", text="Be brief."),
    Turn(role="user", text="What is it?", images=(0,)),
    Turn(role="assistant", text="an old answer"),
    Turn(role="user", text="And this <image>?", images=(1,)),
    Turn(role="assistant", text="another"),
    Turn(role="user", text="Which of the two is <|User|> larger?"),
    Turn(role="assistant", text="neither"),
)
CONVERSATION = """
name: conversation
table: qa
min_images: 0
steps:
  - each: turns
    prompts: ["{question}"]
    hints: {ocr: " It reads: {ocr}"}
    generation: {max_new_tokens: 4}
"""
STEPS = """
name: steps
table: qa
steps:
  - {name: scene, prompts: [Describe the image in detail.], generation: {max_new_tokens: 40}}
  - {name: things, prompts: ["Name what is in {scene}"], answer: lines, generation: {max_new_tokens: 12}}
  - {each: things, prompts: ["Where is {each}?"], generation: {max_new_tokens: 4}}
"""


def of_two_images(**fields) -> ImageRow:
    row = row_of(**{"recipes": ("conversation", "ocr"), "turns": TURNS, **fields})
    return dataclasses.replace(row, images=(*row.images, dataclasses.replace(row.images[0], uri="/photos/b.png")))


def num_tiles_of(engine, run):
    """What a run gave, and how many tiles were encoded for it."""
    before = engine.stats().num_tiles
    done = run()
    return done, engine.stats().num_tiles - before


def test_conversation_about_two_images_encodes_each_once(stage_of, engine, tmp_path):
    spec = RecipeSpec(name=put_recipe(tmp_path, CONVERSATION, "conversation"), hints=("ocr",))
    ((row,), num_tiles) = num_tiles_of(engine, lambda: label(stage_of(spec, OCR), of_two_images()))
    assert row.recipe_errors == ()
    assert labels_by_recipe(row) == {"conversation": [0, 1, 2], "ocr": [0]}
    assert num_tiles == sum(image.num_tiles for image in row.images)
    answers = [made for made in row.labels if made.recipe == "conversation"]
    assert [made.values["original_answer"] for made in answers] == ["an old answer", "another", "neither"]
    assert [made.values["question_images"] for made in answers] == [[0], [1], []]
    assert answers[2].values["question"] == "Which of the two is <|User|> larger?"
    lengths = [made.num_prompt_tokens for made in answers]
    assert lengths == sorted(set(lengths)), "each turn is asked with all that was said before"


def test_later_turn_is_asked_after_the_new_answer_and_not_after_the_old_one(stage_of, engine, tmp_path):
    spec = RecipeSpec(name=put_recipe(tmp_path, CONVERSATION, "conversation"))
    asked = []

    class Door:
        def open(self, images):
            return View(engine.open(images))

        def stats(self):
            return engine.stats()

    class View:
        def __init__(self, view):
            self._view = view

        async def __aenter__(self):
            await self._view.__aenter__()
            return self

        async def __aexit__(self, *exc_info):
            await self._view.__aexit__(*exc_info)

        async def chat(self, messages, **params):
            asked.append(messages)
            return await self._view.chat(messages, **params)

    scene = render_scene(1)
    question = scene.questions[0].question
    turns = (Turn(role="user", text=question, images=(0,)), *TURNS[2:])
    row = of_two_images(recipes=("conversation",), turns=turns)
    (row,) = label(stage_of(spec, door=Door()), row, picture=scene.image)
    new = row.labels[0].values["answer"]
    assert new not in ("", "an old answer")
    history = [part["text"] for message in asked[-1] for part in message["content"] if "text" in part]
    assert history[:2] == [question, new]


def test_conversation_without_an_image_is_answered_without_a_tile(stage_of, engine, tmp_path):
    spec = RecipeSpec(name=put_recipe(tmp_path, CONVERSATION, "conversation"))
    turns = (Turn(role="user", text="What is 2 + 2?"), Turn(role="assistant", text="5"))
    row = dataclasses.replace(row_of(recipes=("conversation",), turns=turns), images=())
    ((row,), num_tiles) = num_tiles_of(engine, lambda: label(stage_of(spec), row))
    assert (labels_by_recipe(row), num_tiles) == ({"conversation": [0]}, 0)


def test_recipe_of_several_steps_encodes_its_image_once(stage_of, engine, tmp_path):
    spec = RecipeSpec(name=put_recipe(tmp_path, STEPS, "steps"))
    ((row,), num_tiles) = num_tiles_of(engine, lambda: label(stage_of(spec, *ALL), row_of(recipes=("steps", "qa"))))
    assert row.recipe_errors == ()
    assert num_tiles == row.images[0].num_tiles
    of_steps = [made for made in row.labels if made.recipe == "steps"]
    assert [made.item for made in of_steps] == list(range(len(of_steps)))
    assert of_steps, "nano has named something"
    assert all(made.prompt == f"Where is {made.values['question']}?" for made in of_steps)


def test_choice_is_bound_to_its_options_and_needs_no_image(stage_of, engine, tmp_path):
    text = """
    name: score
    table: scores
    steps: [{each: labels, images: none, prompts: ["Rate: {text}"], answer: choice, choices: ["1", "2", "3"]}]
    """
    spec = RecipeSpec(name=put_recipe(tmp_path, text, "score"), of=("ocr", "qa"))
    (row,) = label(stage_of(spec, OCR, QA), row_of(recipes=("ocr", "qa", "score")))
    scores = [made for made in row.labels if made.recipe == "score"]
    assert [(made.values["of_recipe"], made.values["of_item"]) for made in scores] == [("ocr", 0), ("qa", 0), ("qa", 1)]
    assert all(made.values["score"] in (1, 2, 3) and made.flags == () for made in scores)


def test_only_pending_recipes_run(stage_of):
    (row,) = label(stage_of(*ALL), row_of(recipes=("qa",)))
    assert {made.recipe for made in row.labels} == {"qa"}


def test_image_without_questions_gets_no_label_and_no_error(stage_of):
    spec = RecipeSpec(name="qa", questions_from="q")
    (row,) = label(stage_of(spec), row_of(recipes=("qa",)))
    assert (row.labels, row.recipe_errors, row.error) == ((), (), None)


def test_read_only_tiles_are_taken_as_they_come(stage_of):
    """Ray hands out views of shared memory."""
    stage, block = stage_of(OCR), tiled(row_of(recipes=("ocr",)))
    block[TILES_COLUMN][0].setflags(write=False)
    (labelled,) = asyncio.run(collected(stage, block))
    assert len(rows_of(labelled)[0].labels) == 1


def test_sampling_is_repeatable_and_differs_between_images(stage_of):
    warm = RecipeSpec(
        name="ocr", max_new_tokens=8, temperature=50.0
    )  # nano is sure of itself: at 2 it still says the same
    first, second = (label(stage_of(warm), row_of("a", ("ocr",)), row_of("b", ("ocr",))) for _ in range(2))
    assert [texts(row) for row in first] == [texts(row) for row in second]
    assert texts(first[0]) != texts(first[1])


def test_checkpoint_that_cannot_be_loaded_is_an_error_of_the_first_call(tmp_path):
    stage = LabelImage(replica=ReplicaConfig(checkpoint=str(tmp_path), engine=EngineSpec()), recipes=())
    with pytest.raises(ValueError, match="config.json"):
        label(stage, row_of())
    stage.close()


@pytest.mark.parametrize(
    ("dtype", "device", "resolved"),
    [
        ("auto", "cpu", torch.float32),
        ("auto", "cuda", torch.bfloat16),
        ("float32", "cuda", torch.float32),
        ("bfloat16", "cpu", torch.bfloat16),
    ],
)
def test_precision_follows_the_device_unless_it_is_said(dtype, device, resolved):
    assert resolve_dtype(dtype, device) is resolved


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_gpu_that_is_demanded_and_not_there_is_an_error():
    assert resolve_device("auto") == "cpu"
    with pytest.raises(ValueError, match="no CUDA device is visible"):
        resolve_device("cuda")


class DeadEngine:
    """It has lost a rank."""

    def stats(self):
        raise EngineDiedError("rank 1 was ended by signal 9")


@pytest.mark.parametrize("somebody_starts_it_anew", [True, False])
def test_worker_that_is_asked_what_a_dead_engine_did_ends_where_somebody_starts_it_anew(
    monkeypatch, tmp_path, somebody_starts_it_anew
):
    def exit_(code):
        raise SystemExit(code)

    monkeypatch.setattr(ReplicaConfig, "load", lambda config: DeadEngine())
    monkeypatch.setattr(os, "_exit", exit_)
    deaths = WorkerDeaths(str(tmp_path), 1, this_actor=lambda: Actor(name="a", is_successor=False))
    stage = LabelImage(
        replica=ReplicaConfig(checkpoint="nano", engine=EngineSpec()),
        recipes=(),
        in_hand=InHand(str(tmp_path), run=1) if somebody_starts_it_anew else None,
        deaths=deaths if somebody_starts_it_anew else None,
    )
    with pytest.raises(SystemExit if somebody_starts_it_anew else EngineDiedError, match=r"^1$|rank 1"):
        stage.stats()
    assert deaths.by_reason() == ({"rank 1 was ended by signal 9": 1} if somebody_starts_it_anew else {})
