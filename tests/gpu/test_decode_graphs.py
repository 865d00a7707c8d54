"""What a CUDA graph replays is what the same step computes, and an engine answers alike with graphs and without."""

import random

import numpy as np
import pytest
import torch

from model import checkpoint as checkpoints
from model.decode_graphs import CudaGraphCapture, DecodeRunner, can_capture
from model.engine import Engine, EngineConfig, Request
from model.kv_cache import PAGE_TOKENS, PagedKVCache, pages_for
from model.step_layout import SequenceStep
from tests import golden
from tests.gpu.helpers import (
    CUDA,
    ON_GPU,
    answers,
    assert_same_where_decided,
    load,
    needs_hopper,
    processor,
    run_all,
    scheduler,
    sequence,
)
from tests.model.helpers import ask, image

pytestmark = [*ON_GPU, needs_hopper]

NAMES = ("small-like", "tiny-like", "extra70-like", "tiny")
NUM_PAGES = 800


def filled_cache(name: str) -> PagedKVCache:
    cache = PagedKVCache(load(name).config.language, num_pages=NUM_PAGES, dtype=torch.bfloat16, device=CUDA)
    cache._rows_LSW.normal_(generator=torch.Generator(CUDA).manual_seed(1))
    return cache


def random_steps(draw: random.Random, num_sequences: int, max_tokens: int) -> list[SequenceStep]:
    lengths = sorted(draw.randint(1, max_tokens) for _ in range(num_sequences))
    pages = draw.sample(range(NUM_PAGES), sum(map(pages_for, lengths)))
    steps = []
    for length in lengths:
        own, pages = pages[: pages_for(length)], pages[pages_for(length) :]
        steps.append(SequenceStep(pages=own, start=length - 1, end=length))
    return steps


@pytest.mark.parametrize("name", [*NAMES, "nano"])
def test_replayed_step_is_bit_for_bit_the_padded_step_computed_anew(name: str):
    """Sizes take turns, so that graphs that share memory would spoil each other's results."""
    model, draw = load(name), random.Random(name)
    replayed, computed = (
        DecodeRunner(model.language, filled_cache(name), max_num_sequences=12, capture=capture)
        for capture in (CudaGraphCapture(CUDA), None)
    )
    for num_sequences, max_tokens in [(3, 300), (12, 900), (1, 300), (3, 300), (7, 900), (12, 900), (3, 300)]:
        steps = random_steps(draw, num_sequences, max_tokens)
        ids = np.array([draw.randrange(200) for _ in steps])
        assert torch.equal(replayed.run(ids, steps), computed.run(ids, steps))
    num_slots = NUM_PAGES * PAGE_TOKENS  # without the scratch page
    assert torch.equal(replayed._cache._rows_LSW[:, :num_slots], computed._cache._rows_LSW[:, :num_slots])


def mixed_requests(name: str) -> list[Request]:
    """More than run at once, prompts of all lengths, answers of 1 to 40 tokens."""
    draw = random.Random(name)
    requests = [ask("word " * draw.choice([1, 8, 40]), max_new_tokens=draw.choice([1, 3, 12, 40])) for _ in range(14)]
    if name != "tiny":  # its images are 384 px tiles, and random weights see nothing in them
        requests.append(ask("<image>\nWhat?", images=(image("tiny"),), max_new_tokens=12))
    return requests


@pytest.mark.parametrize("name", NAMES)
def test_answers_with_graphs_are_those_of_the_same_padded_steps_computed_anew(name: str):
    steps = scheduler(name, cuda_graphs=False)
    steps.decode_runner = DecodeRunner(load(name).language, steps.cache, max_num_sequences=9, capture=None)
    requests = mixed_requests(name)
    assert answers(name, requests, cuda_graphs=True) == run_all(name, steps, requests)


@pytest.mark.parametrize("name", NAMES)
def test_answers_with_graphs_are_those_of_packed_steps(name: str):
    requests = mixed_requests(name)
    with_graphs, without = (answers(name, requests, cuda_graphs=cuda_graphs) for cuda_graphs in (True, False))
    assert_same_where_decided(name, requests, with_graphs, without)


@pytest.mark.parametrize("cuda_graphs", [True, False], ids=["graphs", "no graphs"])
def test_engine_on_a_gpu_answers_as_the_scheduler_by_itself(cuda_graphs: bool):
    requests = mixed_requests("small-like")
    expected = answers("small-like", requests, cuda_graphs=False)
    config = EngineConfig(max_num_sequences=9, prefill_chunk_tokens=64, cuda_graphs=cuda_graphs)
    with Engine(load("small-like"), processor("small-like"), config=config) as served:
        answered = [completion.token_ids for completion in served.generate(requests)]
    assert_same_where_decided("small-like", requests, answered, expected)


def test_every_token_is_counted_once_in_the_experts_loads():
    model, steps = load("small-like"), scheduler("small-like", cuda_graphs=True)
    for request in mixed_requests("small-like"):
        steps.add(sequence("small-like", request))
    loads = [sum(layer) for layer in model.language.expert_loads()]
    while not steps.is_idle:
        steps.step()
    counted = [sum(layer) - before for layer, before in zip(model.language.expert_loads(), loads, strict=True)]
    stats = steps.stats.snapshot(num_shared_tokens=0, num_preemptions=0, expert_loads=[])
    num_copies = (stats.num_prefill_tokens + stats.num_decode_tokens) * model.config.language.num_experts_per_tok
    assert counted == [num_copies] * len(counted)


def test_float32_experts_are_not_captured():
    """They are a loop that reads how many tokens each of them has."""
    assert can_capture(load("small-like").language)
    model = checkpoints.load(golden.checkpoint_folder("small-like"), device=CUDA, dtype=torch.float32)
    assert not can_capture(model.language)
