"""The metrics of a whole run, which its driver counts: images committed, and those still pending.

How many are pending the run's progress knows. Knows no Ray, nor the stages.
"""

import contextlib
import time
from collections.abc import Iterator, Mapping

from pipeline.increments import OUTCOMES, of_receipt
from pipeline.metric_names import IMAGES, PENDING_IMAGES, RUN_START, STORE_RETRIES
from pipeline.metrics import Increment, recorder
from pipeline.run_progress import RunProgress


@contextlib.contextmanager
def run_metrics(job: str, progress: RunProgress) -> Iterator["RunMetrics"]:
    """While a run labels. To be entered where Ray runs; elsewhere it does nothing."""
    zeros = [Increment(metric=IMAGES, value=0, tags={"outcome": outcome}) for outcome in OUTCOMES]
    recorder().start(job, [*zeros, Increment(metric=STORE_RETRIES, value=0)])
    recorder().set(RUN_START, time.time())
    try:
        yield RunMetrics(progress)
    finally:
        recorder().stop()


class RunMetrics:
    def __init__(self, progress: RunProgress) -> None:
        self._progress = progress

    def committed(self, receipt: Mapping[str, int]) -> None:
        """Of one block, as the sink tells it, which the progress has added."""
        recorder().add_all(of_receipt(receipt))
        self.tell_pending()

    def tell_pending(self) -> None:
        recorder().set(PENDING_IMAGES, self._progress.num_pending)
