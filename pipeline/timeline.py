"""Counts that grow -> their course over a whole run, in a bounded number of points, to be drawn later."""

from collections.abc import Mapping, Sequence

MAX_POINTS = 240
FIRST_STEP_S = 1.0


class Timeline:
    """Points are a step apart at least. Where they become too many, every second one goes, and the step doubles."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._step_s = FIRST_STEP_S
        self._points: list[tuple[float, ...]] = [(0.0, *(0.0 for _ in names))]

    def add(self, elapsed_s: float, sums: Mapping[str, float]) -> None:
        """sums: since the start."""
        point = (round(elapsed_s, 1), *(float(sums.get(name, 0)) for name in self._names))
        if len(self._points) > 2 and elapsed_s - self._points[-2][0] < self._step_s:
            self._points[-1] = point
        else:
            self._points.append(point)
        if len(self._points) > MAX_POINTS:
            self._points = [*self._points[:-1:2], self._points[-1]]
            self._step_s *= 2

    def as_dict(self) -> dict[str, list[float]]:
        """Columns: `elapsed_s`, and the sum of each count then; none where nothing was added."""
        if len(self._points) == 1:
            return {}
        columns = zip(*self._points, strict=True)
        return dict(zip(("elapsed_s", *self._names), map(list, columns), strict=True))
