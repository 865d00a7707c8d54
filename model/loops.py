"""When an answer goes round in circles."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class LoopStop:
    max_period_tokens: int
    min_repeats: int
    min_tokens: int
