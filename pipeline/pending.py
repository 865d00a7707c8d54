"""How the pairs of a manifest shard ended -> which of them are to be labelled: a matrix of images and recipes.

Holds booleans and numbers, never a pair as a Python object. Shapes: N images, R recipes.
"""

import dataclasses
import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import QUARANTINED
from pipeline.settled import Settled
from schemas.errors import ErrorKind
from schemas.rows import ImageRow

TRANSIENT_KINDS = frozenset(str(kind) for kind in ErrorKind if not kind.permanent)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a run is to do: these recipes wherever no commit covers them, and once more what failed for these reasons.

    recipe_digests: by recipe; a pair committed under another digest is pending. run: this run's number; what it has
    quarantined itself is not taken again. retried_kinds: of quarantined pairs, `ErrorKind`s to try again. absent_from:
    shards of which the source no longer has all images; those that it lacks are not taken.
    """

    recipe_digests: Mapping[str, str]
    run: int = 1
    retried_kinds: frozenset[str] = TRANSIENT_KINDS
    max_images_of: Mapping[str, int] = field(default_factory=dict)
    """By manifest shard: of those that were pending when the run began, only so many, the first ones."""
    absent_from: frozenset[str] = frozenset()

    def is_tried_again(self, outcomes: pa.Table) -> np.ndarray:
        """(outcomes,) whether an outcome is a failure that is to be tried once more."""
        kinds = pa.array(sorted(self.retried_kinds), pa.string())
        failed = pc.equal(outcomes["status"], QUARANTINED).to_numpy()
        earlier = outcomes["run"].to_numpy() < self.run
        return failed & earlier & pc.is_in(outcomes["error_kind"], value_set=kinds).to_numpy()

    def was_tried_by_this_run(self, outcomes: pa.Table) -> np.ndarray:
        """(outcomes,) whether this run has made the outcome: before it, the pair was pending."""
        return outcomes["run"].to_numpy() == self.run


@dataclass(frozen=True, kw_only=True)
class PendingPairs:
    recipes: tuple[str, ...]
    is_pending_NR: np.ndarray
    num_earlier_attempts_N: np.ndarray
    """The most of any pending recipe."""

    @property
    def images(self) -> np.ndarray:
        """The images of which anything is pending, by their place."""
        return np.flatnonzero(self.is_pending_NR.any(axis=1))

    def slice(self, first: int, num_images: int) -> "PendingPairs":
        some = slice(first, first + num_images)
        return dataclasses.replace(
            self,
            is_pending_NR=self.is_pending_NR[some],
            num_earlier_attempts_N=self.num_earlier_attempts_N[some],
        )

    def only(self, images: np.ndarray) -> "PendingPairs":
        """With nothing pending of other images than these, given by their place."""
        is_kept_N = np.zeros(len(self.is_pending_NR), dtype=bool)
        is_kept_N[images] = True
        return dataclasses.replace(self, is_pending_NR=self.is_pending_NR & is_kept_N[:, None])

    def recipes_of(self, images: np.ndarray) -> list[tuple[str, ...]]:
        """For each image its pending recipes."""
        return [tuple(itertools.compress(self.recipes, pending)) for pending in self.is_pending_NR[images].tolist()]

    def with_attempts(self, rows: list[ImageRow], images: np.ndarray) -> list[ImageRow]:
        attempts = self.num_earlier_attempts_N[images]
        if not attempts.any():
            return rows
        return [
            dataclasses.replace(row, num_earlier_attempts=num) if num else row
            for row, num in zip(rows, attempts.tolist(), strict=True)
        ]


def pending_pairs(
    sample_ids: pa.Array, settled: Settled, wanted: Wanted, *, before_this_run: bool = False
) -> PendingPairs:
    """
    Args:
        sample_ids: (N,) of the shard, in order.
        settled: of its commits.
        before_this_run: what was pending when the run began; else what is now.
    """
    is_pending = wanted.is_tried_again(settled.outcomes)
    if before_this_run:
        is_pending = is_pending | wanted.was_tried_by_this_run(settled.outcomes)
    # One entry more, for pairs without an outcome: `find` says -1.
    again = np.append(is_pending, True)
    attempts = np.append(settled.outcomes["attempts"].to_numpy(), 0)
    recipes = tuple(wanted.recipe_digests)
    is_pending_NR = np.zeros((len(sample_ids), len(recipes)), dtype=bool)
    attempts_N = np.zeros(len(sample_ids), dtype=np.int64)
    for place, recipe in enumerate(recipes):
        found_N = settled.find(sample_ids, recipe)
        is_pending_NR[:, place] = again[found_N]
        attempts_N = np.maximum(attempts_N, np.where(again[found_N], attempts[found_N], 0))
    return PendingPairs(recipes=recipes, is_pending_NR=is_pending_NR, num_earlier_attempts_N=attempts_N)
