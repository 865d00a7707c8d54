import asyncio
import dataclasses
import hashlib

import numpy as np
import pytest
import torch

from model.prompt import Processor
from pipeline.label import LabelImage, ReplicaConfig, resolve_device, resolve_dtype
from pipeline.prepare import TileImage
from pipeline.recipes import make_recipes
from schemas.errors import ErrorKind, RowError
from schemas.job import CaptionSpec, EngineSpec, GroundingSpec, OcrSpec, QaSpec
from schemas.rows import CARRIED_COLUMN, ROW_COLUMN, TILES_COLUMN, ImageRow, rows_of, to_columns
from tests.pipeline.pictures import encode, four_corners
from tests.pipeline.rows import one_image_row

OCR = OcrSpec(max_new_tokens=5)
CAPTION = CaptionSpec(max_new_tokens=5, hints=("ocr",))
QA = QaSpec(max_new_tokens=4, questions=("How many?", "Why?"))
GROUNDING = GroundingSpec(max_new_tokens=40, queries=("the dog",))
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


def tiled(*rows: ImageRow) -> dict:
    """A block as the tiler hands it on: each row with a picture of its own size."""
    resolutions = Processor.from_checkpoint("nano").config.candidate_resolutions
    encoded = [[encode(four_corners(60 + 60 * number, 120), "PNG")] for number in range(len(rows))]
    return TileImage(candidate_resolutions=resolutions, max_pixels=1_000_000)(to_columns(rows, encoded=encoded))


async def collected(stage, block):
    return [labelled async for labelled in stage(block)]


def label(stage, *rows: ImageRow) -> list[ImageRow]:
    (block,) = asyncio.run(collected(stage, tiled(*rows)))
    assert set(block) == {ROW_COLUMN, CARRIED_COLUMN}
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
    long = QaSpec(max_new_tokens=4, questions=("Why?", ENDLESS))
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
    assert dict(row.recipe_errors)["caption"].message == "its hint ocr failed: RuntimeError: out of memory"


def test_one_image_that_fails_leaves_its_neighbours(stage_of, engine):
    door = BrokenDoor(engine, "only of b", RuntimeError())
    spec = QaSpec(max_new_tokens=3, questions_from="q")
    rows = [row_of(name, ("qa",), questions=(f"only of {name}",)) for name in "abc"]
    a, b, c = label(stage_of(spec, door=door), *rows)
    assert [len(row.labels) for row in (a, b, c)] == [1, 0, 1]
    assert b.recipe_errors[0][1].message == "RuntimeError: RuntimeError"


def test_image_that_cannot_be_opened_fails_as_a_whole(stage_of):
    """Tiles of another checkpoint's size, as a broken configuration would make them."""
    stage, block = stage_of(*ALL), tiled(row_of())
    block[TILES_COLUMN][0] = np.zeros((2, 28, 28, 3), dtype=np.uint8)
    (labelled,) = asyncio.run(collected(stage, block))
    (row,) = rows_of(labelled)
    assert row.error is not None
    assert row.error.kind is ErrorKind.ENGINE_ERROR
    assert row.error.message.startswith("ValueError: ")
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


def test_only_pending_recipes_run(stage_of):
    (row,) = label(stage_of(*ALL), row_of(recipes=("qa",)))
    assert {made.recipe for made in row.labels} == {"qa"}


def test_image_without_questions_gets_no_label_and_no_error(stage_of):
    spec = QaSpec(questions_from="q")
    (row,) = label(stage_of(spec), row_of(recipes=("qa",)))
    assert (row.labels, row.recipe_errors, row.error) == ((), (), None)


def test_read_only_tiles_are_taken_as_they_come(stage_of):
    """Ray hands out views of shared memory."""
    stage, block = stage_of(OCR), tiled(row_of(recipes=("ocr",)))
    block[TILES_COLUMN][0].setflags(write=False)
    (labelled,) = asyncio.run(collected(stage, block))
    assert len(rows_of(labelled)[0].labels) == 1


def test_sampling_is_repeatable_and_differs_between_images(stage_of):
    warm = OcrSpec(max_new_tokens=8, temperature=50.0)  # nano is sure of itself: at 2 it still says the same
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
