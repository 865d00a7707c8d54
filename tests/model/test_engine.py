"""Every request gets the answer it would get alone, whatever runs beside it or waits."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch

from model.constraint_specs import BoxList, Choice
from model.engine import ContextTooLongError, Engine, EngineConfig, Request
from model.prompt import Processor
from model.tokenizer import ChatTokenizer
from pipeline.recipes.boxes import parse_boxes
from tests import golden
from tests.model.engines import NAMES, WAIT_S, answers, answers_alone, random_requests
from tests.model.helpers import ask, engine, image, load

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
