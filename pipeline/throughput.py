"""Counts that arrive one after another -> how fast they grow, over the last minute and since the start.

Holds one set of sums for each second of the window at most, however many counts arrive.
"""

import time
from collections import Counter, deque
from collections.abc import Callable, Mapping

WINDOW_S = 60.0
_STEP_S = 1.0


class Throughput:
    """Not for several threads at once."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, window_s: float = WINDOW_S) -> None:
        """Starts now. clock: seconds."""
        self._clock, self._window_s = clock, window_s
        self._started_at = clock()
        self._sums: Counter[str] = Counter()
        self._history: deque[tuple[float, Mapping[str, float]]] = deque([(self._started_at, {})])
        """Sums from a time on; the first are those with which the window began."""

    @property
    def sums(self) -> Mapping[str, float]:
        return self._sums

    def add(self, counts: Mapping[str, float]) -> None:
        self._sums.update(counts)  # adds
        now, (last, _) = self._clock(), self._history[-1]
        if len(self._history) > 1 and now - last < _STEP_S:
            self._history[-1] = (last, dict(self._sums))
        else:
            self._history.append((now, dict(self._sums)))
        self._forget(now)

    def per_s(self, name: str) -> float:
        """Over the last minute, or since the start where that is later."""
        began, before = self._window()
        return _ratio(self._sums[name] - before.get(name, 0), self._clock() - began)

    def per_s_since_start(self, name: str) -> float:
        return _ratio(self._sums[name], self._clock() - self._started_at)

    def of_window(self) -> dict[str, float]:
        """What was added in the last minute."""
        _, before = self._window()
        return {name: value - before.get(name, 0) for name, value in self._sums.items()}

    def eta_s(self, name: str, num_left: float) -> float | None:
        """When so many more will have come, at the speed of the last minute; where none came in it, at that since the
        start; None before the first."""
        rate = self.per_s(name) or self.per_s_since_start(name)
        if not num_left:
            return 0.0
        return num_left / rate if rate else None

    def _window(self) -> tuple[float, Mapping[str, float]]:
        now = self._clock()
        self._forget(now)
        began, before = self._history[0]
        return max(began, now - self._window_s), before

    def _forget(self, now: float) -> None:
        while len(self._history) > 1 and self._history[1][0] <= now - self._window_s:
            self._history.popleft()


def _ratio(part: float, whole: float) -> float:
    return part / whole if whole > 0 else 0.0
