"""A padded step out of fixed buffers computes what the packed step computes; its padding leaves no trace.

Recording itself needs a GPU (`tests/gpu`). Here a step is either computed anew, or "recorded" as a call that is made
again: all but the recording is the same code.
"""

import random
from collections.abc import Callable
from concurrent.futures import Future

import numpy as np
import pytest
import torch
from torch import Tensor

from model.decode_graphs import DecodeRunner, can_capture, padded_batch_sizes, table_widths
from model.deepseek_vl2 import DeepseekVL2
from model.kernels import paged_latent_decode_cpu
from model.kv_cache import PAGE_TOKENS, PagedKVCache, pages_for
from model.scheduler import Scheduler
from model.sequence import Request, Sequence
from model.step_layout import SequenceStep, pack_step
from tests import golden
from tests.model.helpers import ask, engine, load

CPU = torch.device("cpu")
NAMES = ("small-like", "base-like", "tiny-like", "extra70-like", "extra84-like")
NUM_PAGES = 400


def test_sizes_are_close_together_where_few_sequences_run():
    assert padded_batch_sizes(1) == (1,)
    assert padded_batch_sizes(6) == (1, 2, 4, 6)
    assert padded_batch_sizes(16) == (1, 2, 4, 8, 16)
    assert padded_batch_sizes(37) == (1, 2, 4, 8, 16, 24, 32, 37)


def test_tables_widen_by_powers_of_two_up_to_the_whole_context():
    assert table_widths(256) == (32, 64, 128, 256)
    assert table_widths(100) == (32, 64, 100)
    assert table_widths(7) == (7,)


def filled_cache(model: DeepseekVL2) -> PagedKVCache:
    """Every page holds something, the scratch page excepted, as in an engine that has run for a while."""
    cache = PagedKVCache(model.config.language, num_pages=NUM_PAGES, dtype=torch.float32, device=CPU)
    rows_LSW = rows_of(cache)
    rows_LSW[:, : NUM_PAGES * PAGE_TOKENS].normal_(generator=torch.Generator().manual_seed(1))
    return cache


def rows_of(cache: PagedKVCache) -> Tensor:
    """All layers' rows [L, S, W], the scratch page's last."""
    return cache._rows_LSW


def random_steps(draw: random.Random, num_sequences: int, max_tokens: int = 300) -> list[SequenceStep]:
    """One token each of sequences of all lengths, on pages in no order."""
    lengths = sorted(draw.randint(1, max_tokens) for _ in range(num_sequences))
    pages = draw.sample(range(NUM_PAGES), sum(map(pages_for, lengths)))
    steps = []
    for length in lengths:
        own, pages = pages[: pages_for(length)], pages[pages_for(length) :]
        steps.append(SequenceStep(pages=own, start=length - 1, end=length))
    return steps


@torch.inference_mode()
def packed(model: DeepseekVL2, cache: PagedKVCache, ids: np.ndarray, steps: list[SequenceStep]) -> Tensor:
    language = model.language
    return language(language.embed_tokens(torch.from_numpy(ids)), pack_step([], steps, CPU), cache)


def runner(model: DeepseekVL2, cache: PagedKVCache, *, max_num_sequences: int = 16, capture=None) -> DecodeRunner:
    return DecodeRunner(model.language, cache, max_num_sequences=max_num_sequences, capture=capture)


class Recorder:
    """Stands where a GPU records: what is recorded is done once, and again whenever it is replayed."""

    def __init__(self) -> None:
        self.num_recorded = 0

    def __call__(self, work: Callable[[], None]) -> Callable[[], None]:
        self.num_recorded += 1
        work()
        return work


@pytest.mark.parametrize("num_sequences", [1, 3, 4, 7, 13])
@pytest.mark.parametrize("name", NAMES)
def test_padded_step_computes_and_writes_what_the_packed_step_does(name: str, num_sequences: int):
    model, draw = load(name), random.Random(num_sequences)
    caches = [filled_cache(model) for _ in range(2)]
    runs = runner(model, caches[0])
    for _ in range(3):  # so that the buffers hold another step's values
        steps = random_steps(draw, num_sequences)
        ids = np.array([draw.randrange(model.config.language.vocab_size) for _ in steps])
        hidden_BD, expected_BD = runs.run(ids, steps), packed(model, caches[1], ids, steps)
        torch.testing.assert_close(hidden_BD, expected_BD, atol=1e-5, rtol=1e-5)
        assert torch.equal(model.language.logits(hidden_BD).argmax(-1), model.language.logits(expected_BD).argmax(-1))
    own, expected = (rows_of(cache)[:, : NUM_PAGES * PAGE_TOKENS] for cache in caches)
    torch.testing.assert_close(own, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", ["small-like", "extra70-like"])
def test_step_writes_one_row_of_each_sequence_and_padding_one_of_the_scratch_page(name: str):
    model = load(name)
    cache, steps = filled_cache(model), random_steps(random.Random(0), 3)
    before = rows_of(cache).clone()
    runner(model, cache).run(np.array([5, 6, 7]), steps)
    changed = (rows_of(cache) != before).any(dim=-1).any(dim=0).nonzero().flatten().tolist()
    assert changed == sorted([*(step.first_slot for step in steps), cache.scratch_page * PAGE_TOKENS])


def test_scratch_page_is_handed_out_to_nobody():
    cache = filled_cache(load("small-like"))
    assert cache.scratch_page not in cache.allocate(cache.num_pages)
    assert cache.num_free_pages == 0


def expert_loads(model: DeepseekVL2, run: Callable[[], Tensor]) -> list[list[int]]:
    before = model.language.expert_loads()
    run()
    after = model.language.expert_loads()
    return [[b - a for a, b in zip(*layers, strict=True)] for layers in zip(before, after, strict=True)]


def test_padding_counts_as_no_experts_load():
    model, steps, ids = load("small-like"), random_steps(random.Random(3), 5), np.arange(5)
    cache = filled_cache(model)
    packed(model, cache, ids, steps)  # so that there are loads to begin with
    runs = runner(model, cache)
    assert expert_loads(model, lambda: runs.run(ids, steps)) == expert_loads(
        model, lambda: packed(model, cache, ids, steps)
    )


@pytest.fixture
def no_kernel(monkeypatch: pytest.MonkeyPatch) -> None:
    """Contexts are copied out of the cache, so that the width of the page table counts."""
    monkeypatch.setattr(paged_latent_decode_cpu, "_library", lambda: None)


@pytest.mark.usefixtures("no_kernel")
def test_size_is_recorded_when_it_first_comes_and_replayed_from_then_on():
    model, record, draw = load("base-like"), Recorder(), random.Random(5)
    runs = runner(model, filled_cache(model), capture=record)
    for num_sequences in (3, 4, 3, 9, 1, 16):
        runs.run(np.zeros(num_sequences, dtype=np.int64), random_steps(draw, num_sequences))
    assert runs.captured_sizes == [(4, 32), (16, 32), (1, 32)]
    assert record.num_recorded == 3


@pytest.mark.usefixtures("no_kernel")
def test_wider_table_is_used_only_while_a_long_context_needs_it():
    model, draw = load("base-like"), random.Random(6)
    runs = runner(model, filled_cache(model), capture=Recorder())
    long = SequenceStep(pages=list(range(100)), start=PAGE_TOKENS * 32, end=PAGE_TOKENS * 32 + 1)
    for steps in (random_steps(draw, 1), [long], random_steps(draw, 1)):
        runs.run(np.zeros(1, dtype=np.int64), steps)
    assert runs.captured_sizes == [(1, 32), (1, 64)]


def test_recording_leaves_no_trace_but_in_the_scratch_page():
    """What is done while recording would otherwise be written, and counted, twice."""
    model = load("small-like")
    cache, steps, ids = filled_cache(model), random_steps(random.Random(8), 2), np.array([3, 4])
    packed(model, cache, ids, steps)
    recorded: list[tuple[Tensor, list[list[int]]]] = []

    def record(work: Callable[[], None]) -> Callable[[], None]:
        work()
        recorded.append((rows_of(cache).clone(), model.language.expert_loads()))
        return work

    before, loads = rows_of(cache).clone(), model.language.expert_loads()
    runner(model, cache, capture=record).run(ids, steps)
    ((rows_LSW, loads_recorded),) = recorded
    assert torch.equal(rows_LSW[:, : NUM_PAGES * PAGE_TOKENS], before[:, : NUM_PAGES * PAGE_TOKENS])
    assert loads_recorded == loads


@pytest.mark.usefixtures("no_kernel")
def test_size_that_cannot_be_captured_says_how_to_do_without():
    def refuse(work: Callable[[], None]) -> Callable[[], None]:
        raise RuntimeError("operation not permitted when stream is capturing")

    model = load("small-like")
    runs = runner(model, filled_cache(model), capture=refuse)
    with pytest.raises(RuntimeError, match=r"2 rows and 32 pages .*not permitted.*EngineConfig\(cuda_graphs=False\)"):
        runs.run(np.zeros(2, dtype=np.int64), random_steps(random.Random(0), 2))


def test_nothing_is_captured_on_a_cpu():
    assert not can_capture(load("small-like").language)
    assert scheduler("small-like").decode_runner is None


def scheduler(name: str, *, cache_tokens: int = 4096) -> Scheduler:
    return Scheduler(
        load(name), golden.processor(name), max_num_sequences=6, prefill_chunk_tokens=64, cache_tokens=cache_tokens
    )


def requests(name: str) -> list[Request]:
    draw = random.Random(name)
    sampled = {"temperature": 0.9, "top_p": 0.95, "repetition_penalty": 1.05}
    return [
        ask("word " * draw.choice([1, 8, 60]), max_new_tokens=draw.choice([1, 3, 12, 40]), seed=index, **params)
        for index in range(10)
        for params in [sampled if index % 3 == 0 else {}]
    ]


@pytest.mark.parametrize("cache_tokens", [4096, 480], ids=["room for all", "few pages"])
@pytest.mark.parametrize("name", NAMES)
def test_answers_are_those_of_packed_steps_whatever_runs_together(name: str, cache_tokens: int):
    steps, record = scheduler(name, cache_tokens=cache_tokens), Recorder()
    steps.decode_runner = runner(load(name), steps.cache, max_num_sequences=6, capture=record)
    sequences = [
        Sequence(
            prompt=golden.processor(name).encode(request.messages),
            params=request,
            future=Future(),
            max_total_tokens=min(cache_tokens, load(name).config.language.max_position_embeddings),
        )
        for request in requests(name)
    ]
    for one in sequences:
        steps.add(one)
    while not steps.is_idle:
        steps.step()
    assert record.num_recorded, "some steps had no prompts in them"
    with engine(name, max_num_sequences=1, cache_tokens=cache_tokens) as served:
        alone = [completion.token_ids for completion in served.generate(requests(name))]
    assert [one.future.result(timeout=0).token_ids for one in sequences] == alone
