"""Answers about images that are open are those of the same conversation alone."""

import asyncio
import random
from collections.abc import Callable

import numpy as np
import pytest

from model.engine import Completion, Engine
from model.tiling import TiledImage
from tests import golden
from tests.model.engines import WAIT_S, WORDS, answers
from tests.model.helpers import ask, engine, image


def view_answers(served: Engine, images: list, questions: list[str], **params) -> list[Completion]:
    async def ask_all() -> list[Completion]:
        async with served.open(images) as view:
            return await asyncio.gather(*(view.generate(question, **params) for question in questions))

    return asyncio.run(asyncio.wait_for(ask_all(), WAIT_S))


@pytest.mark.parametrize(
    "names", [[], ["wide"], ["tiny", "odd"], ["tiny", "odd", "sq"]], ids=lambda names: f"{len(names)}"
)
def test_answers_about_a_view_are_those_of_the_same_conversation(names: list[str]):
    """extra70-like, whose global view comes last."""
    images, questions = [image(name) for name in names], ["What is it?", "Where is it, then?"]
    content = "<image>\n" * len(names)
    with engine("extra70-like", prefill_chunk_tokens=64) as served:
        expected = served.generate([ask(content + q, images=tuple(images), max_new_tokens=8) for q in questions])
        assert answers(view_answers(served, images, questions, max_new_tokens=8)) == answers(expected)


def test_images_tiled_before_may_be_opened_also_read_only_ones():
    (tiled,) = golden.processor("extra70-like").tile([image("wide")])
    read_only = TiledImage(
        tiles=np.frombuffer(tiled.tiles.tobytes(), np.uint8).reshape(tiled.tiles.shape), grid=tiled.grid
    )
    with engine("extra70-like") as served:
        expected = view_answers(served, [image("wide")], ["What?"], max_new_tokens=8)
        assert answers(view_answers(served, [read_only], ["What?"], max_new_tokens=8)) == answers(expected)


def test_many_views_may_be_open_and_asked_at_once():
    names = ["wide", "tall", "odd", "tiny"]

    async def ask_view(served: Engine, name: str) -> list[Completion]:
        async with served.open([image(name)]) as view:
            first = await view.generate("What is it?", max_new_tokens=6)
            second = await view.generate([{"type": "text", "text": first.text}, " Really?"], max_new_tokens=6)
            return [first, second]

    async def ask_all(served: Engine) -> list[list[Completion]]:
        return await asyncio.gather(*(ask_view(served, name) for name in names))

    with engine("extra70-like", prefill_chunk_tokens=32) as served:
        together = asyncio.run(asyncio.wait_for(ask_all(served), WAIT_S))
        one_by_one = [asyncio.run(ask_view(served, name)) for name in names]
    assert [answers(view) for view in together] == [answers(view) for view in one_by_one]


def test_view_cannot_be_asked_outside_of_its_block():
    async def ask_afterwards(served: Engine) -> None:
        view = served.open([image("tiny")])
        with pytest.raises(RuntimeError, match="the view is not open"):
            await view.generate("Too early")
        async with view:
            await view.generate("In time", max_new_tokens=1)
        with pytest.raises(RuntimeError, match="the view is not open"):
            await view.generate("Too late")

    with engine("extra70-like") as served:
        asyncio.run(ask_afterwards(served))


@pytest.mark.parametrize(
    ("ask_view", "message"),
    [
        (lambda view: view.generate("hi", temperature=-1), "temperature is -1"),
        (lambda view: view.generate("<image> more"), "2 <image> marks but 1 images"),
        (lambda view: view.generate("word " * 3000), "the context holds"),
    ],
    ids=["parameter", "marks", "context"],
)
def test_refused_question_leaves_the_view_open(ask_view: Callable, message: str):
    async def ask_twice(served: Engine) -> Completion:
        async with served.open([image("tiny")]) as view:
            with pytest.raises(ValueError, match=message):
                await ask_view(view)
            return await view.generate("hi", max_new_tokens=2)

    with engine("extra70-like") as served:
        assert asyncio.run(ask_twice(served)).num_output_tokens == 2


def test_view_of_a_closed_engine_does_not_open():
    served = engine("extra70-like")
    view = served.open([image("tiny")])
    served.close()

    async def open_view() -> None:
        async with view:
            raise AssertionError("the view should not have opened")

    with pytest.raises(RuntimeError, match="the engine is closed"):
        asyncio.run(open_view())


@pytest.mark.parametrize("name", ["small-like", "tiny-like"])
def test_answers_about_views_in_a_crowded_engine_are_those_of_each_alone(name: str):
    """Few pages and slots, random lengths, sampled and greedy, views that open and close meanwhile."""
    draw = random.Random(name)
    pictures = ["tiny", "odd", "tiny", "sq"]
    asked = [
        [
            (" ".join(draw.choice(WORDS) for _ in range(draw.choice([1, 9, 40]))), draw.choice([1, 5, 17]), index % 2)
            for index in range(4)
        ]
        for _ in pictures
    ]

    async def ask_view(served: Engine, picture: str, questions: list) -> list:
        async with served.open([image(picture)]) as view:
            runs = [
                view.generate(text, max_new_tokens=length, temperature=0.8 * sampled, seed=7, ignore_eos=True)
                for text, length, sampled in questions
            ]
            return answers(await asyncio.gather(*runs))

    async def ask_all(served: Engine) -> list:
        runs = [ask_view(served, picture, questions) for picture, questions in zip(pictures, asked, strict=True)]
        return await asyncio.gather(*runs)

    with engine(name, max_num_sequences=6, prefill_chunk_tokens=96, cache_tokens=1400) as served:
        crowded = asyncio.run(asyncio.wait_for(ask_all(served), WAIT_S))
    with engine(name, max_num_sequences=1, prefill_chunk_tokens=4096) as served:
        for picture, questions, together in zip(pictures, asked, crowded, strict=True):
            alone = [asyncio.run(ask_view(served, picture, [question])) for question in questions]
            assert [one for answer in alone for one in answer] == together
