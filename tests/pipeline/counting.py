"""A recorder in the place of Ray's metrics, which remembers what it is told."""

from collections import Counter
from collections.abc import Iterable

import pytest

from pipeline.metric_names import Metric
from pipeline.metrics import Increment


class Counting:
    def __init__(self) -> None:
        self.sums: Counter[tuple[str, ...]] = Counter()
        """By name, without what all names begin with, and the tags' values."""
        self.gauges: dict[str, float] = {}
        self.jobs: list[str] = []

    def start(self, job: str, zeros: Iterable[Increment] = ()) -> None:
        self.jobs.append(job)

    def stop(self) -> None:
        self.jobs.clear()

    def add(self, metric: Metric, value: float = 1, **tags: str) -> None:
        assert metric.kind == "counter"
        assert set(tags) == set(metric.tags)
        self.sums[_short(metric), *(tags[name] for name in metric.tags)] += value

    def add_all(self, increments: Iterable[Increment]) -> None:
        for one in increments:
            self.add(one.metric, one.value, **one.tags)

    def set(self, metric: Metric, value: float) -> None:
        assert metric.kind == "gauge"
        self.gauges[_short(metric)] = value

    def of(self, name: str) -> dict[tuple[str, ...], float]:
        """One metric, by its tags' values."""
        return {tags: value for (metric, *rest), value in self.sums.items() if metric == name for tags in [tuple(rest)]}


def counting(monkeypatch: pytest.MonkeyPatch, *modules: object) -> Counting:
    """What these modules count from now on."""
    fake = Counting()
    for module in modules:
        monkeypatch.setattr(module, "recorder", lambda: fake)
    return fake


def summed(increments: Iterable[Increment]) -> dict[tuple[str, ...], float]:
    """Of increments by themselves, as `Counting.sums`; zeros are left out."""
    fake = Counting()
    fake.add_all(increments)
    return {key: value for key, value in fake.sums.items() if value}


def _short(metric: Metric) -> str:
    return metric.name.removeprefix("labelmill_")
