"""Tokens that each expert was given -> sums over blocks and replicas, and how even they are.

Loads are a list for each layer with experts, in the order of the layers, of the tokens of each of its experts. A layer
that no token has reached may be an empty one.
"""

from collections.abc import Callable, Sequence
from itertools import zip_longest

Loads = Sequence[Sequence[int]]


def added(loads: Loads, more: Loads) -> list[list[int]]:
    return _by_expert(lambda of_expert, more_of_it: of_expert + more_of_it, loads, more)


def grown(now: Loads, before: Loads) -> list[list[int]]:
    """What came since; nothing where the earlier loads are the higher ones."""
    return _by_expert(lambda of_expert, earlier: max(0, of_expert - earlier), now, before)


def highest(loads: Loads, others: Loads) -> list[list[int]]:
    return _by_expert(max, loads, others)


def imbalance(loads: Loads) -> list[float]:
    """Per layer, the load of its busiest expert over the mean: 1 is even, the number of experts a collapse. Empty where
    no expert was given anything."""
    if not any(map(any, loads)):
        return []
    return [round(max(of, default=0) * len(of) / max(1, sum(of)), 3) for of in loads]


def _by_expert(combine: Callable[[int, int], int], loads: Loads, others: Loads) -> list[list[int]]:
    layers = zip_longest(loads, others, fillvalue=())
    return [[combine(*of_expert) for of_expert in zip_longest(*of_layer, fillvalue=0)] for of_layer in layers]
