"""Every request gets the answer it would get alone, whatever runs beside it, waits, is cancelled or fails."""

import asyncio
import functools
import gc
import random
import subprocess
import sys
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch

from model.constraint_specs import BoxList, Choice
from model.deepseek_vl2 import DeepseekVL2
from model.engine import Completion, ContextTooLongError, Engine, EngineConfig, Request
from model.prompt import Processor
from model.tiling import TiledImage
from model.tokenizer import ChatTokenizer
from pipeline.recipes.boxes import parse_boxes
from tests import golden
from tests.model.helpers import ask, engine, image, load

NAMES = ("small-like", "base-like", "tiny-like")
WORDS = ["the", "red", "sign", "above", "a", "door", "says", "open", "and", "12", "houses", "stand", "behind", "it"]
WAIT_S = 60
"""Longer than anything here takes: it turns a hang into a failure."""


def random_requests(name: str, *, sampled: bool) -> list[Request]:
    """Prompts of 10 to 900 tokens, most without an image, answers of 1 to 20 tokens."""
    draw = random.Random(f"{name} {sampled}")
    requests = []
    for index in range(9):
        images = [image("tiny")] * (1 if index == 2 else 2 if index == 5 else 0)
        text = " ".join(draw.choice(WORDS) for _ in range(draw.choice([1, 5, 17, 60, 110])))
        system = [{"role": "system", "content": "Be brief."}] if draw.random() < 0.3 else []
        prefix = " ".join(draw.choice(WORDS) for _ in range(draw.choice([0, 0, 3])))
        params = {"temperature": 0.9, "top_p": 0.95, "seed": index, "repetition_penalty": 1.05} if sampled else {}
        user = {"role": "user", "content": "<image>" * len(images) + text}
        messages = [*system, user, {"role": "assistant", "content": prefix}]
        max_new_tokens = draw.choice([1, 2, 8, 20])
        requests.append(Request(messages=messages, images=images, max_new_tokens=max_new_tokens, **params))
    return requests


def answers(completions: list[Completion]) -> list[tuple[list[int], str]]:
    return [(completion.token_ids, completion.finish_reason) for completion in completions]


@functools.cache
def answers_alone(name: str, sampled: bool) -> list[tuple[list[int], str]]:
    with engine(name, max_num_sequences=1, prefill_chunk_tokens=4096) as served:
        return answers(served.generate(random_requests(name, sampled=sampled)))


CONFIGS = {
    "together": {},
    "in chunks of 16": {"prefill_chunk_tokens": 16},
    "in chunks of 64": {"prefill_chunk_tokens": 64},
    "in chunks of 512": {"prefill_chunk_tokens": 512},
    "three at a time": {"max_num_sequences": 3, "prefill_chunk_tokens": 100},
    "with few pages": {"cache_tokens": 1200, "prefill_chunk_tokens": 48},
}


@pytest.mark.parametrize("config", CONFIGS)
@pytest.mark.parametrize("sampled", [False, True], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_that_each_request_gets_alone(name: str, sampled: bool, config: str):
    with engine(name, **CONFIGS[config]) as served:
        completions = served.generate(random_requests(name, sampled=sampled))
    assert answers(completions) == answers_alone(name, sampled)


def test_completions_come_in_the_order_of_the_requests():
    lengths = [9, 1, 5, 2]
    with engine("base-like") as served:
        completions = served.generate([ask(f"Count {n}", max_new_tokens=n) for n in lengths])
    assert [completion.num_output_tokens for completion in completions] == lengths
    assert {completion.finish_reason for completion in completions} == {"length"}


def test_no_requests_have_no_completions():
    with engine("base-like") as served:
        assert served.generate([]) == []


def test_prompt_of_one_token_is_answered():
    with engine("base-like") as served:
        messages = [{"role": "assistant", "content": ""}]
        (completion,) = served.generate([Request(messages=messages, max_new_tokens=3)])
    assert completion.num_prompt_tokens == 1
    assert completion.num_output_tokens == 3


def test_answer_ends_with_the_end_of_sentence_which_its_text_leaves_out():
    request = ask("Hello", max_new_tokens=8)
    with engine("base-like") as served:
        (free,) = served.generate([request])
        eos = free.token_ids[3]
        stop_at = free.token_ids.index(eos) + 1
    tokenizer = golden.processor("base-like").tokenizer
    assert free.finish_reason == "length"
    with stopping_at(eos) as served:
        (stopped,) = served.generate([request])
    assert (stopped.token_ids, stopped.finish_reason) == (free.token_ids[:stop_at], "stop")
    assert stopped.text == tokenizer.decode(free.token_ids[: stop_at - 1])


def stopping_at(token_id: int) -> Engine:
    """base-like with another end of sentence: its own is hardly ever its likeliest token."""
    config = golden.processor("base-like").config
    tokenizer = ChatTokenizer.from_checkpoint(
        golden.checkpoint_folder("base-like"), image_token=config.image_token, bos_token_id=0, eos_token_id=token_id
    )
    return Engine(load("base-like"), Processor(config, tokenizer))


def test_mean_logprob_is_that_of_the_model():
    request = ask("Hello", max_new_tokens=1)
    with engine("base-like") as served:
        (completion,) = served.generate([request])
    prompt = golden.processor("base-like").encode(request.messages)
    logprobs_V = load("base-like").logits(prompt)[-1].log_softmax(-1)
    assert completion.mean_logprob == pytest.approx(float(logprobs_V.max()), abs=1e-4)


@pytest.mark.parametrize("room", [1, 2, 5])
def test_answer_ends_where_the_context_is_full(room: int):
    request = ask("A question of some length, to be answered at length", max_new_tokens=100)
    num_prompt_tokens = len(golden.processor("base-like").encode(request.messages))
    with engine("base-like", cache_tokens=num_prompt_tokens + room) as served:
        (completion,) = served.generate([request])
    assert (completion.num_output_tokens, completion.finish_reason) == (room, "length")


def test_prompt_that_fills_the_context_is_refused_and_nothing_is_run():
    with engine("base-like", cache_tokens=32) as served:
        short, long = ask("short", max_new_tokens=2), ask("long " * 40)
        with pytest.raises(ContextTooLongError, match="but the context holds 32"):
            served.generate([short, long])
        exact = len(golden.processor("base-like").encode(short.messages))
        assert served.generate([short])[0].num_prompt_tokens == exact
    with engine("base-like", cache_tokens=exact) as served, pytest.raises(ContextTooLongError):
        served.generate([short])


def test_control_token_without_an_embedding_is_refused():
    """As where a tokenizer was extended and the model was not; on a GPU the lookup would abort the process."""
    processor, config = golden.processor("base-like"), load("base-like").config
    prompt = processor.encode(ask("hi").messages)
    ids = np.append(prompt.input_ids, config.language.vocab_size)
    extended = type(prompt)(input_ids=ids, image_mask=np.append(prompt.image_mask, False), images=prompt.images)
    with pytest.raises(ValueError, match="holds token id 672, but the model has 672 embeddings"):
        load("base-like").logits(extended)
    load("base-like").check_prompt(prompt)


def test_many_threads_may_generate_at_once():
    requests = random_requests("base-like", sampled=True)
    with engine("base-like", prefill_chunk_tokens=64) as served, ThreadPoolExecutor(6) as pool:
        halves = [requests[:5], requests[5:]] * 3
        results = list(pool.map(lambda half: answers(served.generate(half)), halves, timeout=WAIT_S))
    alone = answers_alone("base-like", True)
    assert results == [alone[:5], alone[5:]] * 3


class Faulty(DeepseekVL2):
    """base-like, whose next call of `language` raises `fault` once it is set."""

    fault: Exception | None = None
    entered: threading.Event
    go_on: threading.Event

    @classmethod
    def make(cls) -> "Faulty":
        source = load("base-like")
        model = cls(source.config)
        model.load_state_dict(source.state_dict())
        model.entered, model.go_on = threading.Event(), threading.Event()
        model.go_on.set()
        model.language.register_forward_pre_hook(lambda *_: model.before_step())
        return model.eval().requires_grad_(False)

    def before_step(self) -> None:
        self.entered.set()
        assert self.go_on.wait(WAIT_S)
        if self.fault is not None:
            fault, self.fault = self.fault, None
            raise fault


@pytest.fixture
def faulty() -> Faulty:
    return Faulty.make()


def serve(model: DeepseekVL2, **config: int) -> Engine:
    return Engine(model, golden.processor("base-like"), config=EngineConfig(**config))


@pytest.mark.parametrize("fault", [MemoryError("too much"), RuntimeError("shapes differ"), AssertionError("bug")])
def test_error_in_a_step_reaches_the_caller_and_the_engine_lives_on(faulty: Faulty, fault: Exception):
    request = ask("Hello", max_new_tokens=4)
    with serve(faulty) as served:
        before = answers(served.generate([request]))
        faulty.fault = fault
        with pytest.raises(type(fault), match=str(fault)):
            served.generate([request, request])
        assert answers(served.generate([request])) == before


def test_error_in_a_step_spares_the_requests_that_wait(faulty: Faulty):
    with serve(faulty, max_num_sequences=1) as served, ThreadPoolExecutor(2) as pool:
        faulty.go_on.clear()
        first = pool.submit(served.generate, [ask("Hello", max_new_tokens=4)])
        assert faulty.entered.wait(WAIT_S)
        second = pool.submit(served.generate, [ask("Hello", max_new_tokens=4)])
        faulty.fault = MemoryError("too much")
        faulty.go_on.set()
        with pytest.raises(MemoryError):
            first.result(WAIT_S)
        assert second.result(WAIT_S)[0].num_output_tokens == 4


def test_request_cancelled_while_its_step_fails_does_not_stop_the_engine(faulty: Faulty):
    with serve(faulty) as served:
        faulty.go_on.clear()

        async def ask_and_cancel() -> None:
            async with served.open([]) as view:
                asking = asyncio.create_task(view.generate("Hello"))
                await asyncio.to_thread(faulty.entered.wait, WAIT_S)
                asking.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await asking

        asyncio.run(ask_and_cancel())
        faulty.fault = MemoryError("too much")
        faulty.go_on.set()
        assert served.generate([ask("Hello", max_new_tokens=2)])[0].num_output_tokens == 2


def test_closing_fails_what_still_runs_and_what_comes_later(faulty: Faulty):
    served = serve(faulty, max_num_sequences=1)
    faulty.go_on.clear()
    with ThreadPoolExecutor(2) as pool:
        running = [pool.submit(served.generate, [ask("Hello", max_new_tokens=3000)]) for _ in range(2)]
        assert faulty.entered.wait(WAIT_S)
        faulty.go_on.set()
        served.close()
        for call in running:  # the second one may be late
            with pytest.raises(RuntimeError, match=r"the engine (was|is) closed"):
                call.result(WAIT_S)
    with pytest.raises(RuntimeError, match="the engine is closed"):
        served.generate([ask("Hello")])


def test_closing_again_does_nothing():
    served = engine("base-like")
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: served.close(), range(6), timeout=WAIT_S))


def test_dropped_engine_is_collected_and_its_thread_ends():
    before = set(threading.enumerate())
    served = engine("base-like")
    (thread,) = set(threading.enumerate()) - before
    reference = weakref.ref(served)
    del served
    gc.collect()
    assert reference() is None
    thread.join(WAIT_S)
    assert not thread.is_alive()


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_interpreter_ends_with_an_engine_still_open(busy: bool):
    """The daemon thread must not be inside torch while the interpreter is taken apart."""
    code = f"""if True:
        import threading
        from tests.model.helpers import ask, engine
        served = engine("base-like")
        if {busy}:
            asking = lambda: served.generate([ask("Hello", max_new_tokens=3000)])
            threading.excepthook = lambda args: print(args.exc_value)
            threading.Thread(target=asking, daemon=True).start()
            served.generate([ask("Hello", max_new_tokens=2)])
        print("the end")
    """
    root = Path(__file__).parents[2]
    done = subprocess.run([sys.executable, "-c", code], cwd=root, capture_output=True, text=True, timeout=WAIT_S)
    assert (done.returncode, done.stdout.splitlines()[0], done.stderr) == (0, "the end", "")


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


def test_images_that_cannot_be_encoded_fail_the_opening_alone(faulty: Faulty):
    def refuse(*_: object) -> None:
        raise MemoryError("too many tiles")

    async def open_view(served: Engine) -> None:
        async with served.open([image("tiny")]):
            raise AssertionError("the view should not have opened")

    hook = faulty.vision.register_forward_pre_hook(refuse)
    with serve(faulty) as served:
        with pytest.raises(MemoryError, match="too many tiles"):
            asyncio.run(open_view(served))
        hook.remove()
        assert served.generate([ask("Hello", max_new_tokens=2)])[0].num_output_tokens == 2


def test_view_of_a_closed_engine_does_not_open():
    served = engine("extra70-like")
    view = served.open([image("tiny")])
    served.close()

    async def open_view() -> None:
        async with view:
            raise AssertionError("the view should not have opened")

    with pytest.raises(RuntimeError, match="the engine is closed"):
        asyncio.run(open_view())


@pytest.mark.parametrize("name", ["max_num_sequences", "prefill_chunk_tokens", "cache_tokens"])
def test_refused_configuration_names_its_field(name: str):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        EngineConfig(**{name: 0})


def test_engine_loads_the_built_in_checkpoint_in_bfloat16():
    with Engine.load("nano", dtype=torch.bfloat16) as served:
        request = ask("<image>\nWhat?", images=(image("wide"),), max_new_tokens=4)
        assert served.generate([request])[0].num_output_tokens <= 4


def test_answer_goes_on_after_an_end_of_sentence_that_is_to_be_ignored():
    with engine("base-like") as served:
        (free,) = served.generate([ask("Hello", max_new_tokens=8)])
    with stopping_at(free.token_ids[3]) as served:
        (stopped, unstopped) = served.generate([ask("Hello", max_new_tokens=8, ignore_eos=on) for on in (False, True)])
    assert (stopped.finish_reason, unstopped.finish_reason) == ("stop", "length")
    assert unstopped.token_ids == free.token_ids


@pytest.mark.parametrize("params", [{}, {"temperature": 1.5, "repetition_penalty": 1.2}], ids=["greedy", "sampled"])
@pytest.mark.parametrize("name", NAMES)
def test_boxes_of_any_weights_can_be_parsed_and_other_answers_stay_as_they_are(name: str, params: dict):
    """Golden checkpoints have random weights: their free answers are noise."""
    labels = ["the dog", "<|/ref|><|det|>", "x" * 40]
    free = [ask(f"Question {n}", max_new_tokens=24) for n in range(3)]
    bound = [
        ask(f"<|ref|>{n}<|/ref|>.", max_new_tokens=120, constraint=BoxList(label=label, max_boxes=3), seed=n, **params)
        for n, label in enumerate(labels)
    ]
    with engine(name) as served:
        alone = answers(served.generate(free))
        mixed = served.generate([*free, *bound])
    assert answers(mixed[:3]) == alone
    for label, completion in zip(labels, mixed[3:], strict=True):
        text = completion.text.removeprefix(f"<|ref|>{label}<|/ref|>")
        assert text != completion.text
        parsed = parse_boxes(text, default_label=label, width_px=100, height_px=50)
        assert (completion.finish_reason, parsed.flags) == ("stop", ())
        assert len(parsed.boxes) <= 3


def test_choice_is_one_of_the_options():
    options = ("yes", "no", "cannot tell")
    with engine("small-like") as served:
        requests = [ask(f"Question {n}?", max_new_tokens=24, constraint=Choice(options=options)) for n in range(6)]
        assert {completion.text for completion in served.generate(requests)} <= set(options)


def test_room_too_small_for_the_form_of_an_answer_is_refused():
    request = ask("Where?", max_new_tokens=3, constraint=BoxList(label="the dog"))
    with engine("base-like") as served, pytest.raises(ValueError, match="max_new_tokens is 3, but the shortest answer"):
        served.generate([request])


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
