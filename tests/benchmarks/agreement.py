"""Greedy tokens of two implementations on the same prompts -> that they agree, or that only float noise parts them.

Knows neither implementation. Shapes: T tokens, V vocabulary.
"""

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor


class DisagreementError(AssertionError):
    """The two sides do not compute the same: no speed of theirs can be compared."""


def first_difference(ours: Sequence[int], theirs: Sequence[int]) -> int | None:
    """Index of the first token that differs, a missing one included."""
    if list(ours) == list(theirs):
        return None
    pairs = zip(ours, theirs, strict=False)
    return next((index for index, (mine, other) in enumerate(pairs) if mine != other), min(len(ours), len(theirs)))


def require_agreement(
    prompts: Sequence[Sequence[int]],
    ours: Sequence[Sequence[int]],
    theirs: Sequence[Sequence[int]],
    *,
    logits_of: Callable[[Sequence[int]], Tensor],
    tolerance: float,
) -> dict[str, Any]:
    """Prints and returns how many outputs are equal.

    Args:
        prompts, ours, theirs: token ids of each prompt, and of both sides' outputs to it.
        logits_of: ids -> one side's logits [T, V], to judge a difference.
        tolerance: largest gap between the logits of the two tokens chosen that float noise explains.

    Raises DisagreementError where a difference is larger.
    """
    gaps = []
    for prompt, mine, other in zip(prompts, ours, theirs, strict=True):
        index = first_difference(mine, other)
        if index is None:
            continue
        if index >= min(len(mine), len(other)):
            raise DisagreementError(f"outputs of {len(mine)} and {len(other)} tokens to one prompt")
        row = logits_of([*prompt, *mine[:index]])[-1]
        gap = abs(float(row[mine[index]] - row[other[index]]))
        if gap > tolerance:
            raise DisagreementError(
                f"output token {index} is {mine[index]} here and {other[index]} there, "
                f"and their logits are {gap:.4g} apart, more than {tolerance}"
            )
        gaps.append(gap)
    equal = len(prompts) - len(gaps)
    print(f"greedy tokens agree on {equal} of {len(prompts)} prompts", end="")
    print(f"; the others part at a near-tie (logits at most {max(gaps):.2g} apart)" if gaps else "")
    return {"prompts": len(prompts), "equal": equal, "largest_gap_at_a_difference": max(gaps, default=0.0)}
