"""Experts spread over processes: the same tokens and logits as on one rank, and a share of the weights in each."""

import asyncio
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from model import checkpoint
from model.engine import ContextTooLongError, Engine, RankedEngine, Request
from model.expert_share import ExpertShare
from tests import golden
from tests.model.helpers import ask, image, load, ranked

ROOT = Path(__file__).parents[2]
FIRST_CASES = dict(reversed(golden.model_cases()))
"""By checkpoint, one golden prompt."""


def random_mix(seed: int, count: int) -> list[Request]:
    """Short and long prompts with two, one and no images, greedy and drawn."""
    draw = random.Random(seed)
    requests = []
    for number in range(count):
        images = tuple(image(draw.choice(["tall", "wide", "tiny"])) for _ in range(draw.choice([0, 0, 1, 2])))
        text = "<image>\n" * len(images) + " ".join(["word"] * draw.choice([1, 5, 60])) + f" {number}"
        requests.append(
            ask(
                text,
                images=images,
                max_new_tokens=draw.choice([1, 6, 12]),
                temperature=draw.choice([0.0, 0.8]),
                seed=number,
            )
        )
    return requests


@pytest.fixture(
    scope="module",
    params=[("tiny-like", 2), ("small-like", 4), ("base-like", 2), ("extra70-like", 4), ("extra84-like", 2)],
    ids=str,
)
def sharded(request) -> Iterator[tuple[str, RankedEngine]]:
    name, num_ranks = request.param
    with ranked(name, num_ranks, prefill_chunk_tokens=48, max_num_sequences=4) as engine:
        yield name, engine


def test_random_mixes_have_the_tokens_that_one_rank_gives_them(sharded):
    name, engine = sharded
    requests = random_mix(seed=1, count=12)
    with Engine(load(name), golden.processor(name)) as alone:
        wanted = alone.generate(requests)
    found = engine.generate(requests)
    assert [one.token_ids for one in found] == [one.token_ids for one in wanted]
    assert np.allclose([one.mean_logprob for one in found], [one.mean_logprob for one in wanted], atol=1e-4)


def test_views_on_several_ranks_answer_as_one_rank_does(sharded):
    name, engine = sharded

    async def answers(engine: Engine | RankedEngine) -> list[list[int]]:
        async def of_view(number: int) -> list[int]:
            async with engine.open([image("wide")]) as view:
                first = await view.generate(f"What is this? {number}", max_new_tokens=6)
                messages = [
                    {"role": "user", "content": [{"type": "image"}, "\nGo on"]},
                    {"role": "assistant", "content": ""},
                ]
                second = await view.chat(messages, max_new_tokens=6)
                return [*first.token_ids, *second.token_ids]

        return await asyncio.gather(*map(of_view, range(5)))

    with Engine(load(name), golden.processor(name)) as alone:
        assert asyncio.run(answers(engine)) == asyncio.run(answers(alone))


def test_streamed_answers_of_ranks_are_their_texts(sharded):
    _, engine = sharded

    async def ask_both() -> list[tuple[str, str]]:
        async with engine.open([image("tiny")]) as view:

            async def one(question: str) -> tuple[str, str]:
                pieces: list[str] = []
                answer = await view.generate(question, on_text=pieces.append, max_new_tokens=12)
                return "".join(pieces), answer.text

            return list(await asyncio.gather(one("What is this?"), one("Where?")))

    for told, text in asyncio.run(ask_both()):
        assert told == text != ""


def test_each_rank_holds_and_reads_the_dense_weights_and_its_share_of_the_experts(sharded):
    name, engine = sharded
    model = load(name)
    experts = sum(one.nbytes for key, one in model.named_parameters() if ".experts." in key)
    dense = sum(one.nbytes for key, one in model.named_parameters() if ".experts." not in key)
    num_experts, num_ranks = model.config.language.n_routed_experts, engine.config.expert_ranks
    for rank, ready in enumerate(engine.ready):
        own = len(ExpertShare(rank=rank, num_ranks=num_ranks).experts(num_experts)) / num_experts
        assert ready.num_weight_bytes == pytest.approx(dense + experts * own, rel=0.03)
    stored = sum(ready.num_weight_bytes_read for ready in engine.ready)
    whole = checkpoint.Reading()
    checkpoint.load(golden.checkpoint_folder(name), reading=whole)
    stored_experts = whole.num_bytes * experts / (dense + experts)
    assert stored == pytest.approx(num_ranks * (whole.num_bytes - stored_experts) + stored_experts, rel=0.03)


def test_all_experts_are_served_and_their_loads_add_up_to_those_of_one_rank(sharded):
    name, engine = sharded
    before = engine.stats().expert_loads
    requests = [ask("one two three", max_new_tokens=3)] * 3
    engine.generate(requests)
    after = engine.stats().expert_loads
    with Engine(load(name), golden.processor(name)) as alone:
        base = alone.stats().expert_loads
        alone.generate(requests)
        wanted = alone.stats().expert_loads
    for old, new, start, end in zip(before, after, base, wanted, strict=True):
        own = np.subtract(new, old or [0] * len(new))
        assert own.tolist() == np.subtract(end, start or [0] * len(end)).tolist()
    assert all(stats.exchange.num_exchanges > 0 for stats in engine.rank_stats())


def test_request_that_cannot_be_answered_fails_alone(sharded):
    _, engine = sharded
    with pytest.raises(ContextTooLongError):
        engine.generate([ask("word " * 5000)])
    assert engine.generate([ask("Hi", max_new_tokens=2)])[0].num_output_tokens <= 2


@pytest.fixture(scope="module", params=[2, 4])
def ranks_logits(request, tmp_path_factory) -> tuple[int, Path]:
    """Each rank's logits of one prompt of every checkpoint."""
    num_ranks, folder = request.param, tmp_path_factory.mktemp("logits")
    cases = [f"{name}={case}" for name, case in FIRST_CASES.items()]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    commands = [
        [sys.executable, "-m", "tests.model.rank_logits", str(num_ranks), str(folder), str(rank), *cases]
        for rank in range(num_ranks)
    ]
    ranks = [subprocess.Popen(command, cwd=ROOT, env=env) for command in commands]
    assert [rank.wait(timeout=300) for rank in ranks] == [0] * num_ranks
    return num_ranks, folder


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
def test_logits_are_those_of_one_rank(name, ranks_logits):
    num_ranks, folder = ranks_logits
    with torch.inference_mode():
        wanted = load(name).logits(golden.prompt(name, FIRST_CASES[name])).numpy()
    for rank in range(num_ranks):
        assert np.abs(np.load(folder / f"{name}-{rank}.npy") - wanted).max() < 1e-4
