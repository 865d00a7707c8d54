"""Stages that are counted do what they did, and say it."""

import asyncio
import inspect
import pickle

import pytest
from ray import cloudpickle

from model.engine_stats import EngineStats
from pipeline import counted as counted_module
from pipeline.counted import Counting, counted, counted_fetch, counted_label
from pipeline.fetch import FetchImage
from pipeline.recipes import make_recipes
from schemas.recipe_specs import RecipeSpec
from schemas.rows import rows_of, to_columns
from tests.pipeline.asked import row_of
from tests.pipeline.counting import counting
from tests.pipeline.outputs import MISSING
from tests.pipeline.rows import one_image_row


@pytest.fixture
def told(monkeypatch):
    return counting(monkeypatch, counted_module)


class Halves:
    """{numbers} -> two blocks of them."""

    def __call__(self, block):
        yield {"numbers": block["numbers"][:1]}
        yield {"numbers": block["numbers"][1:]}


class FakeLabel:
    """Labels nothing; its engine takes ten steps for every block."""

    def __init__(self, *, num_steps: int) -> None:
        self.num_steps = num_steps

    async def __call__(self, block):
        self.num_steps += 10
        await asyncio.sleep(0)
        yield {name: block[name] for name in ("row", "carried")}

    def stats(self) -> EngineStats:
        return EngineStats(num_steps=self.num_steps)


def test_fetched_bytes_are_counted_and_the_block_is_as_before(tmp_path, told):
    (tmp_path / "a.png").write_bytes(b"12345")
    rows = [one_image_row(sample_id=name, image_uri=str(tmp_path / f"{name}.png")) for name in "ab"]
    stage = counted_fetch(FetchImage, "photos")(max_bytes=100, image_column=None)
    block = stage(to_columns(rows))
    stage.close()
    assert [list(encoded) for encoded in block["encoded"]] == [[b"12345"], []]
    assert told.of("fetched_bytes") == {(): 5}
    assert told.of("stage_blocks") == {("fetch",): 1}
    assert set(told.jobs) == {"photos"}


def test_every_block_of_a_stage_that_makes_several_is_counted(told):
    stage = counted(Halves, Counting(job="photos", stage="list"))()
    assert list(stage({"numbers": [1, 2, 3]})) == [{"numbers": [1]}, {"numbers": [2, 3]}]
    assert told.of("stage_blocks") == {("list",): 2}


def test_label_stage_counts_its_failures_and_what_its_engine_did_since_the_block_before(told):
    recipes = make_recipes([RecipeSpec(name="ocr")], checkpoint_digest="c")
    stage = counted_label(FakeLabel, "photos", recipes)(num_steps=5)
    block = to_columns([row_of("a", recipes=("ocr",), error=MISSING)])

    async def run() -> list[dict]:
        blocks = [[made async for made in stage(block)] for _ in range(2)]
        both = await asyncio.gather(*(anext(stage(block)) for _ in range(2)))
        return [*(made for of_call in blocks for made in of_call), *both]

    assert [rows_of(made)[0].error for made in asyncio.run(run())] == [MISSING] * 4
    assert told.of("engine_steps") == {(): 45}, "5 of them before the first block"
    assert told.of("quarantined") == {("ocr", "missing"): 4}
    assert told.of("stage_blocks") == {("label",): 4}


def test_counted_stage_keeps_its_name_and_kind_and_can_be_sent_to_a_worker():
    stage = counted_fetch(FetchImage, "photos")
    assert stage.__name__ == "FetchImage"
    assert issubclass(pickle.loads(cloudpickle.dumps(stage)), FetchImage)
    assert inspect.isasyncgenfunction(counted_label(FakeLabel, "photos", ()).__call__)
    assert inspect.isgeneratorfunction(counted(Halves, Counting(job="photos", stage="list")).__call__)
