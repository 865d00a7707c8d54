"""What an engine says of itself adds up."""

import asyncio
import json

import pytest

from model.engine import Engine, EngineStats
from model.engine_stats import StatsRecorder, total
from tests.model.helpers import ask, engine, image


def test_rates_are_of_steps_of_one_kind():
    recorder = StatsRecorder(max_num_sequences=4, num_cache_pages=10)
    for prefill, decode, seconds in ((100, 0, 0.5), (50, 3, 0.4), (0, 3, 0.1), (0, 2, 0.1)):
        recorder.add_step(
            num_prefill_tokens=prefill, num_decode_tokens=decode, num_running=2, num_used_pages=5, step_s=seconds
        )
    stats = recorder.snapshot(num_shared_tokens=50, num_preemptions=1, expert_loads=[[6, 2], [4, 4]])
    assert (stats.num_prefill_tokens, stats.num_decode_tokens, stats.num_steps) == (150, 8, 4)
    assert stats.prefill_tokens_per_s == pytest.approx(200)
    assert stats.decode_tokens_per_s == pytest.approx(25)
    assert (stats.batch_occupancy, stats.cache_use, stats.prefix_hit_rate) == (0.5, 0.5, 0.25)
    assert stats.expert_imbalance == (1.5, 1.0)


def test_shares_of_ranks_together_are_the_means_of_their_shares():
    ranks = []
    for num_running, num_used_pages in ((4, 10), (2, 0)):
        recorder = StatsRecorder(max_num_sequences=4, num_cache_pages=10)
        for _ in range(3):
            recorder.add_step(
                num_prefill_tokens=0,
                num_decode_tokens=num_running,
                num_running=num_running,
                num_used_pages=num_used_pages,
                step_s=0.1,
            )
        ranks.append(recorder.snapshot(num_shared_tokens=0, num_preemptions=0, expert_loads=[]))
    assert (total(ranks).batch_occupancy, total(ranks).cache_use) == (0.75, 0.5)


def test_engine_that_did_nothing_has_rates_of_zero():
    with engine("base-like") as served:
        stats = served.stats()
    assert (stats.num_steps, stats.decode_tokens_per_s, stats.batch_occupancy) == (0, 0.0, 0.0)
    assert json.loads(json.dumps(stats.as_dict()))["prefix_hit_rate"] == 0.0


def run_views(served: Engine) -> None:
    async def run() -> None:
        async with served.open([image("wide")]) as view:
            await asyncio.gather(*(view.generate(text, max_new_tokens=5, ignore_eos=True) for text in ("a", "b", "c")))

    asyncio.run(run())


def test_engine_counts_tiles_tokens_shared_tokens_and_loads():
    with engine("base-like", prefill_chunk_tokens=4096) as served:
        before = served.stats()
        run_views(served)
        stats = served.stats()
    num_image_tokens = served.processor.config.num_image_tokens(served.processor.tile([image("wide")])[0].grid)
    assert stats.num_tiles == 1 + stats_grid(served)
    assert stats.num_decode_tokens == 3 * 4, "the first token of each is sampled by its prompt's step"
    assert stats.num_shared_tokens > 2 * num_image_tokens
    assert num_image_tokens < stats.num_prefill_tokens < 2 * num_image_tokens
    assert 0.5 < stats.prefix_hit_rate < 1
    num_tokens = stats.num_prefill_tokens + stats.num_decode_tokens
    config = served.model.config.language
    for loads, earlier in zip(stats.expert_loads, before.expert_loads, strict=True):
        assert sum(loads) - sum(earlier) == num_tokens * config.num_experts_per_tok
    assert all(1 <= imbalance <= config.n_routed_experts for imbalance in stats.expert_imbalance)


def stats_grid(served: Engine) -> int:
    wide, high = served.processor.tile([image("wide")])[0].grid
    return wide * high


def test_closed_engine_still_says_what_it_did():
    served = engine("base-like")
    served.generate([ask("Hello", max_new_tokens=2, ignore_eos=True)])
    served.close()
    stats = served.stats()
    assert isinstance(stats, EngineStats)
    assert stats.num_decode_tokens == 1
