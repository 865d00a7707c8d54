"""What an engine did, counted as it went: a plain object for whoever exports it.

Knows nothing of models or threads.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, kw_only=True)
class EngineStats:
    """Sums since the engine was made. Rates are of steps of one kind alone: in a mixed step nobody can tell whose time
    it was."""

    num_steps: int = 0
    step_s: float = 0.0
    num_prefill_tokens: int = 0
    """Computed, those of shared prefixes once; tokens computed again after a preemption included."""
    num_decode_tokens: int = 0
    prefill_only_tokens: int = 0
    prefill_only_s: float = 0.0
    decode_only_tokens: int = 0
    decode_only_s: float = 0.0
    num_running_sum: int = 0
    num_sequence_slots_sum: int = 0
    """Over the steps, the sequences that could have run."""
    max_num_sequences: int = 0
    num_used_pages_sum: int = 0
    num_pages_sum: int = 0
    """Over the steps, the pages that could have been in use."""
    peak_used_pages: int = 0
    num_cache_pages: int = 0
    num_shared_tokens: int = 0
    """Of prompts, found in the cache because another prompt about the same images had put them there."""
    num_preemptions: int = 0
    num_tiles: int = 0
    num_vision_batches: int = 0
    vision_s: float = 0.0
    expert_loads: tuple[tuple[int, ...], ...] = ()
    """Tokens that each expert of each layer was given."""

    @property
    def prefill_tokens_per_s(self) -> float:
        return _ratio(self.prefill_only_tokens, self.prefill_only_s)

    @property
    def decode_tokens_per_s(self) -> float:
        return _ratio(self.decode_only_tokens, self.decode_only_s)

    @property
    def tiles_per_s(self) -> float:
        return _ratio(self.num_tiles, self.vision_s)

    @property
    def batch_occupancy(self) -> float:
        """Mean share of the sequences that could run at once."""
        return _ratio(self.num_running_sum, self.num_sequence_slots_sum)

    @property
    def cache_use(self) -> float:
        """Mean share of the cache's pages in use."""
        return _ratio(self.num_used_pages_sum, self.num_pages_sum)

    @property
    def prefix_hit_rate(self) -> float:
        """Share of prompt tokens that did not have to be computed."""
        return _ratio(self.num_shared_tokens, self.num_shared_tokens + self.num_prefill_tokens)

    @property
    def expert_imbalance(self) -> tuple[float, ...]:
        """Per layer, the load of its busiest expert over the mean; 1 is even, the number of experts a collapse."""
        return tuple(max(loads, default=0) * len(loads) / max(1, sum(loads)) for loads in self.expert_loads)

    def as_dict(self) -> dict[str, Any]:
        """Counts and rates by name, for JSON."""
        rates = ("prefill_tokens_per_s", "decode_tokens_per_s", "tiles_per_s", "batch_occupancy", "cache_use")
        return asdict(self) | {name: getattr(self, name) for name in (*rates, "prefix_hit_rate", "expert_imbalance")}


def total(stats: Sequence[EngineStats]) -> EngineStats:
    """Of several engines together: sums, and of what is a peak the highest."""
    sums = {name: sum(getattr(one, name) for one in stats) for name in _SUMMED}
    loads = zip(*(one.expert_loads for one in stats), strict=True)
    return EngineStats(
        **sums,
        peak_used_pages=max(one.peak_used_pages for one in stats),
        expert_loads=tuple(tuple(map(sum, zip(*(of or () for of in layer), strict=True))) for layer in loads),
    )


class StatsRecorder:
    """The engine thread's running sums."""

    def __init__(self, *, max_num_sequences: int, num_cache_pages: int) -> None:
        self._sums: dict[str, float] = {}
        self._sizes = {"max_num_sequences": max_num_sequences, "num_cache_pages": num_cache_pages}
        self._peak_used_pages = 0

    def add_step(
        self, *, num_prefill_tokens: int, num_decode_tokens: int, num_running: int, num_used_pages: int, step_s: float
    ) -> None:
        """`step_s`: sampling included."""
        self._add("num_steps", 1)
        self._add("num_prefill_tokens", num_prefill_tokens)
        self._add("num_decode_tokens", num_decode_tokens)
        self._add("num_running_sum", num_running)
        self._add("num_sequence_slots_sum", self._sizes["max_num_sequences"])
        self._add("num_used_pages_sum", num_used_pages)
        self._add("num_pages_sum", self._sizes["num_cache_pages"])
        self._peak_used_pages = max(self._peak_used_pages, num_used_pages)
        self._add("step_s", step_s)
        if num_prefill_tokens and num_decode_tokens:
            return
        kind = "prefill_only" if num_prefill_tokens else "decode_only"
        self._add(f"{kind}_tokens", num_prefill_tokens + num_decode_tokens)
        self._add(f"{kind}_s", step_s)

    def add_vision(self, num_tiles: int, seconds: float) -> None:
        self._add("num_vision_batches", 1)
        self._add("num_tiles", num_tiles)
        self._add("vision_s", seconds)

    def snapshot(
        self, *, num_shared_tokens: int, num_preemptions: int, expert_loads: Sequence[Sequence[int]]
    ) -> EngineStats:
        return EngineStats(
            **self._sums,  # type: ignore[arg-type]
            **self._sizes,
            peak_used_pages=self._peak_used_pages,
            num_shared_tokens=num_shared_tokens,
            num_preemptions=num_preemptions,
            expert_loads=tuple(tuple(loads) for loads in expert_loads),
        )

    def _add(self, name: str, value: float) -> None:
        self._sums[name] = self._sums.get(name, 0) + value


_SUMMED = tuple(f.name for f in fields(EngineStats) if f.name not in ("peak_used_pages", "expert_loads"))


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole else 0.0
