"""Digests of texts, in the order of a dataset -> which of them came before, and which texts come most often.

Eight bytes for each different text, in sorted runs of numpy that are merged as they grow: a billion captions fit into
8 GB, and no Python object is kept for any of them. Does not know whose texts they are.
"""

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

_MAX_COUNTED = 1024
_EXAMPLE_CHARS = 200
_SPACES = re.compile(r"[\W_]+")


@dataclass(frozen=True, kw_only=True)
class RepeatedText:
    """The beginning of a text, and how often it comes in all; where more than a thousand different ones are repeated,
    at least so often."""

    text: str
    count: int


def digest_of_text(*texts: str) -> int:
    """64 bits; texts that differ in case, white space and punctuation alone have the same."""
    normal = "\0".join(_SPACES.sub(" ", text.casefold()).strip() or text.strip() for text in texts)
    return int.from_bytes(hashlib.blake2b(normal.encode("utf-8", "surrogatepass"), digest_size=8).digest(), "little")


class SeenTexts:
    """Feed it everything in order."""

    def __init__(self) -> None:
        self._runs: list[np.ndarray] = []
        """Sorted, without duplicates, and no digest in two of them; each at least twice as long as the next."""
        self._counts: dict[int, int] = {}
        """Of digests that were repeated, how often they were so."""
        self._examples: dict[int, str] = {}
        self.num_repeated = 0

    @property
    def num_bytes(self) -> int:
        return sum(run.nbytes for run in self._runs)

    def add(self, digests_N: np.ndarray, texts: Sequence[str]) -> np.ndarray:
        """(N,) which of these texts came before; the first of its kind did not.

        Args:
            digests_N: uint64, see `digest_of_text`.
            texts: (N,) the texts themselves, of which examples are kept.
        """
        different, first, which = np.unique(digests_N, return_index=True, return_inverse=True)
        is_known = np.zeros(len(different), dtype=bool)
        for run in self._runs:
            places = np.minimum(np.searchsorted(run, different), len(run) - 1)
            is_known |= run[places] == different
        repeats_N = is_known[which]
        repeats_N |= first[which] != np.arange(len(digests_N))
        self._add_run(different[~is_known])
        self._count(digests_N, repeats_N, texts)
        return repeats_N

    def most_repeated(self, count: int = 5) -> tuple[RepeatedText, ...]:
        """Most often first."""
        ranked = sorted(self._counts.items(), key=lambda one: (-one[1], self._examples[one[0]]))
        return tuple(RepeatedText(text=self._examples[digest], count=1 + times) for digest, times in ranked[:count])

    def _add_run(self, run: np.ndarray) -> None:
        if not len(run):
            return
        self._runs.append(run)
        while len(self._runs) > 1 and len(self._runs[-2]) < 2 * len(self._runs[-1]):
            merged = np.concatenate([self._runs.pop(), self._runs.pop()])
            merged.sort(kind="stable")  # two sorted runs: a merge
            self._runs.append(merged)

    def _count(self, digests_N: np.ndarray, repeats_N: np.ndarray, texts: Sequence[str]) -> None:
        """Misra and Gries: with so many counters, none that comes often enough is missed."""
        places = np.flatnonzero(repeats_N)
        self.num_repeated += len(places)
        different, first, times = np.unique(digests_N[places], return_index=True, return_counts=True)
        for digest, place, count in zip(different.tolist(), places[first].tolist(), times.tolist(), strict=True):
            if digest not in self._counts:
                if len(self._counts) >= _MAX_COUNTED and not self._make_room(count):
                    continue
                self._examples[digest] = texts[place][:_EXAMPLE_CHARS]
            self._counts[digest] = self._counts.get(digest, 0) + count

    def _make_room(self, count: int) -> bool:
        """Takes what the smallest counter or the new text has from all counters; those that are at 0 then go."""
        taken = min(count, min(self._counts.values()))
        for digest in list(self._counts):
            self._counts[digest] -= taken
            if not self._counts[digest]:
                del self._counts[digest], self._examples[digest]
        return count > taken and len(self._counts) < _MAX_COUNTED
