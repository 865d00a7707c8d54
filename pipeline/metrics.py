"""Numbers that a process counts -> metrics that Ray's agent on its node exports to Prometheus.

The only holder of `ray.util.metrics`. Where no run has begun in the process, as in tests of one stage or the labeling
of a single image, everything here does nothing.
"""

import functools
import threading
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from pipeline.metric_names import JOB_TAG, Metric

GAUGE_REFRESH_S = 1.0
"""Ray's agent drops a gauge that was not set during two of its report intervals, of which the shortest has a second."""


@dataclass(frozen=True, kw_only=True)
class Increment:
    """`value` more of a counter."""

    metric: Metric
    value: float
    tags: dict[str, str] = field(default_factory=dict)


class Recorder:
    """The metrics of one process. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._job: str | None = None
        self._instruments: dict[str, Any] = {}
        self._gauges: dict[Metric, float] = {}
        self._stopped = threading.Event()

    def start(self, job: str, zeros: Iterable[Increment] = ()) -> None:
        """To be called in every process of a run; further calls for the same job do nothing, nor does any without Ray.

        Args:
            zeros: counters that begin at 0. One that is first seen with a value seems not to have grown to it.
        """
        import ray

        with self._lock:
            if self._job == job or not ray.is_initialized():
                return
            self._job, self._stopped = job, threading.Event()
        for zero in zeros:
            self._record(zero.metric, 0, zero.tags)

    def stop(self) -> None:
        """Counts nothing more; what was counted stays with Ray's agent."""
        with self._lock:
            self._job = None
            self._instruments.clear()
            self._gauges.clear()
            self._stopped.set()

    def add(self, metric: Metric, value: float = 1, **tags: str) -> None:
        """Args: value: at least 0; tags: all of the metric's."""
        if self._job is not None and value:
            self._record(metric, value, tags)

    def add_all(self, increments: Iterable[Increment]) -> None:
        for one in increments:
            self.add(one.metric, one.value, **one.tags)

    def set(self, metric: Metric, value: float) -> None:
        """A gauge, which keeps the value until `stop`, or the end of the process."""
        if self._job is None:
            return
        with self._lock:
            is_first = not self._gauges
            self._gauges[metric] = value
        self._record(metric, value, {})
        if is_first:
            threading.Thread(target=self._refresh, args=(self._stopped,), name="gauges", daemon=True).start()

    def _refresh(self, stopped: threading.Event) -> None:
        while not stopped.wait(GAUGE_REFRESH_S):
            with self._lock:
                gauges = dict(self._gauges)
            for metric, value in gauges.items():
                self._record(metric, value, {})

    def _record(self, metric: Metric, value: float, tags: dict[str, str]) -> None:
        assert set(tags) == set(metric.tags), f"{metric.name} takes {metric.tags}, got {sorted(tags)}"
        with self._lock:
            if (job := self._job) is None:
                return
            instrument = self._instruments.get(metric.name)
            if instrument is None:
                instrument = self._instruments[metric.name] = _instrument(metric)
        # Ray's own `Counter.inc` refuses 0.
        instrument._record(value, {JOB_TAG: job, **tags})


@functools.cache
def recorder() -> Recorder:
    """This process's."""
    return Recorder()


def _instrument(metric: Metric) -> Any:
    from ray.util.metrics import Counter, Gauge

    # No histograms: Ray's agent adds up the middles of their buckets, so that their sums are not those of the values.
    kind = Counter if metric.kind == "counter" else Gauge
    return kind(metric.name, description=metric.help, tag_keys=(JOB_TAG, *metric.tags))
