"""An engine's running sums -> what it did since it was last asked, as sums that add up over blocks and replicas.

Knows no engine but by the names of its sums.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from pipeline import expert_load

if TYPE_CHECKING:
    from model.engine_stats import EngineStats

ENGINE_SUMS = (
    "num_steps",
    "num_prefill_tokens",
    "num_decode_tokens",
    "num_running_sum",
    "num_sequence_slots_sum",
    "num_used_pages_sum",
    "num_pages_sum",
)
"""Fields of `EngineStats`."""


class EngineWork:
    """Of one engine."""

    def __init__(self) -> None:
        self._before = dict.fromkeys(ENGINE_SUMS, 0)
        self._loads_before: expert_load.Loads = ()

    def since_last(self, stats: EngineStats) -> dict[str, Any]:
        """`ENGINE_SUMS`, and as `expert_loads` what `pipeline.expert_load` adds up."""
        now = {name: int(getattr(stats, name)) for name in ENGINE_SUMS}
        # Two blocks that end together may be told in another order than they asked in: nothing is counted backwards.
        did = {name: max(0, now[name] - self._before[name]) for name in ENGINE_SUMS}
        loads = expert_load.grown(stats.expert_loads, self._loads_before)
        self._before = {name: max(now[name], self._before[name]) for name in ENGINE_SUMS}
        self._loads_before = expert_load.highest(stats.expert_loads, self._loads_before)
        return {**did, "expert_loads": loads}


def occupancy(sums: Mapping[str, float]) -> float | None:
    """Mean share of the sequences that could run at once; None where no step was made."""
    return _share(sums, "num_running_sum", "num_sequence_slots_sum")


def cache_use(sums: Mapping[str, float]) -> float | None:
    """Mean share of the cache's pages in use; None where no step was made."""
    return _share(sums, "num_used_pages_sum", "num_pages_sum")


def _share(sums: Mapping[str, float], part: str, whole: str) -> float | None:
    return sums[part] / sums[whole] if sums.get(whole) else None
