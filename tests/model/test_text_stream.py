"""The pieces of a streamed answer joined are its text, and nothing is told that a later token could take back."""

import asyncio
import random
from typing import Any

import pytest

from model.engine import Completion, Engine
from model.text_stream import TextStream
from model.tokenizer import ChatTokenizer, Text
from tests import golden
from tests.model.helpers import engine, image

NAMES = ("small-like", "base-like", "tiny-like")


def pieces_of(tokenizer: ChatTokenizer, token_ids: list[int]) -> list[str]:
    pieces: list[str] = []
    stream = TextStream(tokenizer, pieces.append)
    for token_id in token_ids:
        stream.add(token_id)
    stream.close()
    return pieces


@pytest.mark.parametrize("name", NAMES)
def test_pieces_of_any_tokens_joined_are_the_decoded_text(name: str):
    processor, draw = golden.processor(name), random.Random(name)
    for length in (1, 2, 3, 10, 200):
        for _ in range(20):
            token_ids = [draw.randrange(processor.tokenizer.largest_id + 3) for _ in range(length)]
            assert "".join(pieces_of(processor.tokenizer, token_ids)) == processor.decode(token_ids), token_ids


def test_character_is_told_once_all_its_bytes_are_there():
    tokenizer = golden.processor("base-like").tokenizer
    token_ids = tokenizer.encode([Text("猫と🐈", False)])
    assert len(token_ids) > len("猫と🐈"), "the tokenizer knows these characters whole: choose rarer ones"
    pieces = pieces_of(tokenizer, token_ids)
    assert "".join(pieces) == "猫と🐈"
    assert "\ufffd" not in "".join(pieces)


def test_character_that_never_becomes_whole_is_the_replacement_character_at_the_end():
    processor = golden.processor("base-like")
    begun = processor.tokenizer.encode([Text("🐈", False)])[:-1]
    assert pieces_of(processor.tokenizer, begun) == ["\ufffd"] == [processor.decode(begun)]


def test_end_of_sentence_is_never_told_but_where_the_answer_goes_on_after_it():
    processor = golden.processor("base-like")
    (letter,) = processor.tokenizer.encode([Text("a", False)])
    eos = processor.tokenizer.eos_token_id
    assert "".join(pieces_of(processor.tokenizer, [letter, eos])) == "a"
    assert "".join(pieces_of(processor.tokenizer, [letter, eos, letter])) == processor.decode([letter, eos, letter])


def streamed(served: Engine, text: str, **params: Any) -> tuple[Completion, list[str]]:
    pieces: list[str] = []

    async def ask() -> Completion:
        async with served.open([image("tiny")]) as view:
            return await view.generate(text, on_text=pieces.append, **params)

    return asyncio.run(ask()), pieces


@pytest.mark.parametrize("params", [{}, {"temperature": 1.0, "seed": 5}, {"ignore_eos": True}], ids=str)
def test_streamed_answer_of_the_engine_is_its_text_in_several_pieces(params: dict[str, Any]):
    with engine("base-like") as served:
        completion, pieces = streamed(served, "What is this?", max_new_tokens=24, **params)
    assert "".join(pieces) == completion.text
    assert len(pieces) > 4


def test_streamed_answer_survives_preemption():
    async def ask_all(served: Engine) -> list[tuple[str, str]]:
        async with served.open([]) as view:

            async def one(number: int) -> tuple[str, str]:
                pieces: list[str] = []
                answer = await view.generate(f"{number} " * 40, on_text=pieces.append, max_new_tokens=60)
                return "".join(pieces), answer.text

            return list(await asyncio.gather(*map(one, range(8))))

    with engine("base-like", cache_tokens=700, prefill_chunk_tokens=64) as served:
        answers = asyncio.run(ask_all(served))
        assert served.stats().num_preemptions > 0
    for told, text in answers:
        assert told == text


def test_cancelled_answer_tells_no_more_and_leaves_the_engine_to_the_others():
    async def ask_and_cancel(served: Engine) -> tuple[str, str, str]:
        pieces: list[str] = []
        begun = asyncio.Event()

        def on_text(piece: str) -> None:
            pieces.append(piece)
            begun.set()

        async with served.open([]) as view:
            leaving = asyncio.ensure_future(view.generate("Go on", on_text=on_text, max_new_tokens=1500))
            staying = asyncio.ensure_future(view.generate("Stay", max_new_tokens=30))
            await begun.wait()
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            told = "".join(pieces)
            text = (await staying).text
        return told, "".join(pieces), text

    with engine("base-like") as served:
        told, told_later, text = asyncio.run(ask_and_cancel(served))
        assert served.stats().num_decode_tokens < 300
    with engine("base-like") as served:
        alone, _ = asyncio.run(_alone(served))
    assert told == told_later
    assert text == alone


async def _alone(served: Engine) -> tuple[str, str]:
    async with served.open([]) as view:
        answer = await view.generate("Stay", max_new_tokens=30)
    return answer.text, answer.finish_reason


def test_listener_that_raises_hurts_neither_the_answer_nor_the_engine():
    def on_text(piece: str) -> None:
        raise OSError("the browser is gone")

    async def ask(served: Engine) -> Completion:
        asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
        async with served.open([]) as view:
            return await view.generate("Go on", on_text=on_text, max_new_tokens=8)

    with engine("base-like") as served:
        assert asyncio.run(ask(served)).num_output_tokens == 8
