"""Tokens of an output -> whether its tail goes round in circles, so that nobody waits for the longest answer allowed.

Depends on the output alone: the same answer ends at the same token, whatever runs beside it and however often it was
preempted.
"""

from collections.abc import Sequence as Seq
from dataclasses import dataclass

CHECK_EVERY_TOKENS = 16
"""A look at the tail costs microseconds, and a loop that is noticed a few tokens later does no harm."""


@dataclass(frozen=True, kw_only=True)
class LoopStop:
    """What counts as a loop: a piece of up to `max_period_tokens` that fills the tail at least `min_repeats` times and
    over at least `min_tokens` tokens. The last repetition may be incomplete beyond that."""

    max_period_tokens: int = 64
    min_repeats: int = 8
    min_tokens: int = 96

    def __post_init__(self) -> None:
        for name, least in (("max_period_tokens", 1), ("min_repeats", 2), ("min_tokens", 2)):
            value = getattr(self, name)
            if not isinstance(value, int) or value < least:
                raise ValueError(f"{name} is {value}, but must be an integer of at least {least}")

    def is_due(self, num_tokens: int) -> bool:
        """Whether an output of so many tokens is to be looked at."""
        return num_tokens % CHECK_EVERY_TOKENS == 0 and num_tokens >= self.min_tokens

    def period_of_tail(self, token_ids: Seq[int]) -> int | None:
        """The shortest period, in tokens, with which the tail loops; None where it does not."""
        num_tokens = len(token_ids)
        if num_tokens < max(self.min_tokens, self.min_repeats):
            return None
        last, before = token_ids[-1], token_ids[-2]
        for period in range(1, min(self.max_period_tokens, num_tokens // self.min_repeats) + 1):
            if token_ids[-1 - period] != last or token_ids[-2 - period] != before:
                continue  # nearly always, so that nothing is copied
            length = max(self.min_tokens, period * self.min_repeats)
            tail = token_ids[num_tokens - length :]
            if tail[period:] == tail[:-period]:
                return period
        return None
