"""What spreading the experts over ranks costs and gains on this machine: `python -m tests.benchmarks.ranks`.

For each number of ranks: wall time of one and the same mix, the share of a step that goes into exchanges (waiting for
the slowest rank included), bytes sent for each token, and how uneven the ranks' loads are.
"""

import argparse
import statistics
import time
from collections.abc import Sequence

import torch

from model.engine import Engine, EngineConfig, RankedEngine, Request
from model.expert_share import ExpertShare
from model.nano.scenes import render_scene, scene_seed


def requests(count: int, output_tokens: int) -> list[Request]:
    """A scene each, to be described at that length."""
    messages = [
        {"role": "user", "content": "<image>\nDescribe the image in detail."},
        {"role": "assistant", "content": ""},
    ]
    return [
        Request(
            messages=messages,
            images=(render_scene(scene_seed(9000, index)).image,),
            max_new_tokens=output_tokens,
            ignore_eos=True,
        )
        for index in range(count)
    ]


def rank_imbalance(expert_loads: Sequence[Sequence[int]], num_ranks: int) -> list[float]:
    """Per layer, the load of the busiest rank over the mean of the ranks."""
    shares = [ExpertShare(rank=rank, num_ranks=num_ranks) for rank in range(num_ranks)]
    found = []
    for loads in expert_loads:
        by_rank = [sum(loads[expert] for expert in share.experts(len(loads))) for share in shares]
        found.append(max(by_rank) * num_ranks / sum(by_rank))
    return found


def measure(checkpoint: str, num_ranks: int, asked: Sequence[Request], repeats: int) -> dict[str, float]:
    with Engine.load(checkpoint, config=EngineConfig(expert_ranks=num_ranks)) as engine:
        engine.generate(asked[:2])
        before = engine.stats()
        exchanged = (
            sum(one.exchange.exchange_s for one in engine.rank_stats()) if isinstance(engine, RankedEngine) else 0.0
        )
        walls = []
        for _ in range(repeats):
            began = time.perf_counter()
            engine.generate(asked)
            walls.append(time.perf_counter() - began)
        after = engine.stats()
        result = {"wall_s": statistics.median(walls)}
        if isinstance(engine, RankedEngine):
            ranks = engine.rank_stats()
            exchange_s = sum(one.exchange.exchange_s for one in ranks) - exchanged
            num_tokens = after.num_prefill_tokens + after.num_decode_tokens
            result |= {
                "exchange_share": exchange_s / (after.step_s - before.step_s),
                "kib_per_token": sum(one.exchange.num_bytes_sent for one in ranks) / num_tokens / 1024,
                "rank_imbalance": max(rank_imbalance(after.expert_loads, num_ranks)),
            }
        return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--checkpoint", default="nano")
    parser.add_argument("--ranks", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--count", type=int, default=16)
    parser.add_argument("--output-tokens", type=int, default=32)
    parser.add_argument("--repeats", type=int, default=3)
    options = parser.parse_args()
    asked = requests(options.count, options.output_tokens)
    print(
        f"{options.checkpoint}, {options.count} scenes, {options.output_tokens} tokens each, torch {torch.__version__}"
    )
    for num_ranks in options.ranks:
        figures = measure(options.checkpoint, num_ranks, asked, options.repeats)
        print(f"{num_ranks} ranks: " + ", ".join(f"{name} {value:.3g}" for name, value in figures.items()), flush=True)


if __name__ == "__main__":
    main()
