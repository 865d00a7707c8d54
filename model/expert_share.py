"""Which routed experts a rank holds: a run of them, as even as their number allows. Knows no weights."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class ExpertShare:
    """Rank r of k holds experts r * E // k up to (r + 1) * E // k."""

    rank: int = 0
    num_ranks: int = 1

    def __post_init__(self) -> None:
        if not 0 <= self.rank < self.num_ranks:
            raise ValueError(f"rank {self.rank} of {self.num_ranks} is none: ranks are counted from 0")

    def experts(self, num_experts: int) -> range:
        """Those of this rank."""
        return self.experts_of(self.rank, num_experts)

    def experts_of(self, rank: int, num_experts: int) -> range:
        return range(rank * num_experts // self.num_ranks, (rank + 1) * num_experts // self.num_ranks)

    def num_experts_by_rank(self, num_experts: int) -> list[int]:
        return [len(self.experts_of(rank, num_experts)) for rank in range(self.num_ranks)]


WHOLE = ExpertShare()
"""All experts on one rank."""
