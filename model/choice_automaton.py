"""Which tokens may come next where a text must be one of a few, whatever the tokens it is cut into.

It reads bytes, because one token may hold part of a character. Knows nothing of the end of an answer.
Shapes: N tokens.
"""

import math
from collections.abc import Mapping, Sequence

import numpy as np


class ChoiceAutomaton:
    """The options over one vocabulary; a state is what was read, as bytes. Safe to share between answers."""

    def __init__(self, ids_by_text: Mapping[bytes, Sequence[int]], options: Sequence[str]) -> None:
        """Takes the ids of ordinary tokens by their text. Raises ValueError for an option that no tokens spell."""
        self._tokens_to_end: dict[bytes, int] = {}
        self._steps: dict[bytes, dict[int, bytes]] = {}
        longest = max(map(len, ids_by_text), default=0)
        for option in options:
            self._add(option, longest, ids_by_text)
        self._tables = {read: self._table(read) for read in self._steps}

    def step(self, state: bytes, token_id: int) -> bytes | None:
        return self._steps[state].get(token_id)

    def tokens_to_end(self, state: bytes) -> int:
        """The fewest tokens that complete an option; 0 where one is complete, though another may go on."""
        return self._tokens_to_end[state]

    def allowed_ids(self, state: bytes, budget: int) -> np.ndarray:
        """int64 [N], unordered: the tokens after which `budget` further tokens are enough to complete an option."""
        ids_N, to_end_N = self._tables[state]
        return ids_N[to_end_N <= budget]

    def _add(self, option: str, longest: int, ids_by_text: Mapping[bytes, Sequence[int]]) -> None:
        text = option.encode()
        fewest = [math.inf] * len(text) + [0]  # tokens from each byte to the end
        for start in reversed(range(len(text) + 1)):
            ends = [end for end in range(start + 1, min(len(text), start + longest) + 1) if fewest[end] < math.inf]
            steps = [(index, end) for end in ends for index in ids_by_text.get(text[start:end], ())]
            fewest[start] = min([fewest[start], *(1 + fewest[end] for _, end in steps)])
            if fewest[start] == math.inf:
                continue
            read = text[:start]
            self._tokens_to_end[read] = int(min(fewest[start], self._tokens_to_end.get(read, math.inf)))
            self._steps.setdefault(read, {}).update({index: text[:end] for index, end in steps})
        if fewest[0] == math.inf:
            raise ValueError(f"the vocabulary has no tokens that spell the option {option!r}")

    def _table(self, read: bytes) -> tuple[np.ndarray, np.ndarray]:
        """int64 [N] ids of the tokens that go on, and int64 [N] the fewest tokens to the end after each."""
        steps = self._steps[read]
        to_end = [self._tokens_to_end[after] for after in steps.values()]
        return np.array(list(steps), dtype=np.int64), np.array(to_end, dtype=np.int64)
