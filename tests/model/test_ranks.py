"""Experts spread over processes: the same tokens and logits as on one rank, a share of the weights in each, and no
process that outlives the engine, however it ends."""

import asyncio
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model import checkpoint
from model.engine import ContextTooLongError, Engine, EngineConfig, EngineDiedError, RankedEngine, Request
from model.expert_share import ExpertShare
from model.memory_plan import fewest_ranks, rank_memory
from model.rank_handle import RankHandle
from model.rank_messages import RankSettings
from model.variants import variant_config
from tests import golden
from tests.model.helpers import ask, image, load

SETTLED_S = 10
ROOT = Path(__file__).parents[2]


def ranked(name: str, num_ranks: int, **config: int) -> RankedEngine:
    engine = Engine.load(golden.checkpoint_folder(name), config=EngineConfig(expert_ranks=num_ranks, **config))
    assert isinstance(engine, RankedEngine)
    return engine


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


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
@pytest.mark.parametrize("num_ranks", [2, 4])
def test_logits_are_those_of_one_rank(name, num_ranks, tmp_path):
    case = next(case for checkpoint_name, case in golden.model_cases() if checkpoint_name == name)
    command = [sys.executable, "-m", "tests.model.rank_logits", name, case, str(num_ranks), str(tmp_path)]
    env = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    ranks = [subprocess.Popen([*command, str(rank)], cwd=ROOT, env=env) for rank in range(num_ranks)]
    assert [rank.wait(timeout=120) for rank in ranks] == [0] * num_ranks
    with torch.inference_mode():
        wanted = load(name).logits(golden.prompt(name, case)).numpy()
    for rank in range(num_ranks):
        assert np.abs(np.load(tmp_path / f"{rank}.npy") - wanted).max() < 1e-4


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def all_gone(pids: list[int]) -> bool:
    end = time.monotonic() + SETTLED_S
    while any(map(is_running, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(is_running, pids))


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_killed_rank_ends_the_others_and_whoever_waits_is_told(victim):
    with ranked("base-like", 3) as engine:
        pids = engine.pids

        async def ask_while_it_dies() -> list[object]:
            async with engine.open([image("wide")]) as view:
                long = [view.generate("Go on", max_new_tokens=400, ignore_eos=True) for _ in range(3)]
                waiting = asyncio.gather(*long, return_exceptions=True)
                await asyncio.sleep(0.2)
                os.kill(pids[victim], signal.SIGKILL)
                return await waiting

        errors = asyncio.run(ask_while_it_dies())
        assert [type(error) for error in errors] == [EngineDiedError] * 3
        assert f"rank {victim}" in str(errors[0])
        assert "signal 9" in str(errors[0])
        assert all_gone(pids)
        with pytest.raises(EngineDiedError, match=f"rank {victim}"):
            engine.generate([ask("Hi")])


def test_ranks_end_with_the_process_that_has_started_them():
    script = (
        "import sys, time\nfrom model.engine import Engine, EngineConfig\n"
        "engine = Engine.load(sys.argv[1], config=EngineConfig(expert_ranks=2))\n"
        "print(*engine.pids, flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(golden.checkpoint_folder("base-like"))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        process.kill()
    assert all_gone(pids)


def test_engine_that_is_closed_or_dropped_leaves_no_process():
    engine = ranked("base-like", 2)
    pids = engine.pids
    engine.close()
    assert all_gone(pids)
    dropped = ranked("base-like", 2)
    pids = dropped.pids
    del dropped
    assert all_gone(pids)


def test_checkpoint_that_cannot_be_loaded_is_one_sentence_and_leaves_no_process(tmp_path):
    folder = golden.checkpoint_folder("base-like")
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    index = (
        json.loads((tmp_path / checkpoint.INDEX_FILE).read_text())
        if (tmp_path / checkpoint.INDEX_FILE).exists()
        else None
    )
    shard = sorted({*index["weight_map"].values()})[0] if index else checkpoint.SINGLE_FILE
    (tmp_path / shard).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"rank 0: .*cannot be read"):
        Engine.load(tmp_path, config=EngineConfig(expert_ranks=2))


@pytest.mark.parametrize(
    ("num_experts", "num_ranks", "sizes"), [(64, 4, [16] * 4), (7, 2, [3, 4]), (6, 4, [1, 2, 1, 2]), (2, 3, [0, 1, 1])]
)
def test_experts_are_divided_as_evenly_as_they_can_be(num_experts, num_ranks, sizes):
    assert ExpertShare(num_ranks=num_ranks).num_experts_by_rank(num_experts) == sizes
    shares = [ExpertShare(rank=rank, num_ranks=num_ranks).experts(num_experts) for rank in range(num_ranks)]
    assert [expert for share in shares for expert in share] == list(range(num_experts))


@pytest.mark.parametrize(
    ("variant", "gb", "num_ranks"), [("small", 80, 1), ("small", 24, 2), ("27b", 40, 2), ("27b", 24, 4)]
)
def test_fewest_ranks_that_hold_the_weights_and_a_cache_are_taken(variant, gb, num_ranks):
    config = variant_config(variant)
    memory = fewest_ranks(config, device_bytes=gb << 30, gpus_per_node=8, dtype=torch.bfloat16)
    assert memory.num_ranks == num_ranks
    assert memory.weight_bytes < (gb << 30)
    assert memory.cache_tokens >= config.language.max_position_embeddings


def test_checkpoint_that_fits_no_node_is_refused_with_the_figures():
    with pytest.raises(ValueError, match=r"49\.\d|\d+\.\d GB of weights.*on each of 1 GPUs, which have 17\.2 GB"):
        fewest_ranks(variant_config("27b"), device_bytes=16 << 30, gpus_per_node=1, dtype=torch.bfloat16)


def test_ranks_share_nothing_but_the_experts():
    config = variant_config("small")
    one, four = (rank_memory(config, num_ranks=k, device_bytes=80 << 30, dtype=torch.bfloat16) for k in (1, 4))
    assert four.dense_bytes == one.dense_bytes
    assert four.expert_bytes == pytest.approx(one.expert_bytes / 4)


def test_rank_that_dies_while_it_starts_is_told_at_once_and_takes_the_others_along(monkeypatch):
    started = []

    class Killed(RankHandle):
        def __init__(self, settings: RankSettings, **how: Any) -> None:
            super().__init__(settings, **how)
            started.append(self.pid)
            if settings.share.rank == 1:
                self.kill()

    monkeypatch.setattr("model.ranked_engine.RankHandle", Killed)
    with pytest.raises(EngineDiedError, match=r"rank 1 .* signal 9"):
        ranked("base-like", 2)
    assert all_gone(started)
