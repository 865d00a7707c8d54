"""The metrics of a whole run, which its driver counts: images committed, and those still pending.

How many images a run has to label is found in a thread, shard by shard: with a million shards it takes longer than the
first labels do. Knows no Ray, nor the stages.
"""

import contextlib
import logging
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence

from pipeline.increments import OUTCOMES, of_receipt
from pipeline.metric_names import IMAGES, PENDING_IMAGES, RUN_START, STORE_RETRIES
from pipeline.metrics import Increment, recorder
from pipeline.storage import StorageError

_log = logging.getLogger(__name__)


@contextlib.contextmanager
def run_metrics(job: str, shards: Sequence[str], *, num_images_of: Callable[[str], int]) -> Iterator["RunMetrics"]:
    """While a run labels. To be entered where Ray runs; elsewhere it does nothing.

    Args:
        num_images_of: a shard, how many of its images were pending when the run began.
    """
    zeros = [Increment(metric=IMAGES, value=0, tags={"outcome": outcome}) for outcome in OUTCOMES]
    recorder().start(job, [*zeros, Increment(metric=STORE_RETRIES, value=0)])
    recorder().set(RUN_START, time.time())
    metrics = RunMetrics(shards, num_images_of)
    metrics.start()
    try:
        yield metrics
    finally:
        metrics.stop()
        recorder().stop()


class RunMetrics:
    def __init__(self, shards: Sequence[str], num_images_of: Callable[[str], int]) -> None:
        self._shards, self._num_images_of = shards, num_images_of
        self._lock = threading.Lock()
        self._num_images = 0
        self._num_committed = 0
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._count_images, name="pending-images", daemon=True)

    @property
    def num_pending(self) -> int:
        """Of the shards counted so far."""
        with self._lock:
            return max(0, self._num_images - self._num_committed)

    def start(self) -> None:
        self._thread.start()

    def committed(self, receipt: Mapping[str, int]) -> None:
        """Of one block, as the sink tells it."""
        recorder().add_all(of_receipt(receipt))
        with self._lock:
            self._num_committed += receipt["num_images"]
        recorder().set(PENDING_IMAGES, self.num_pending)

    def stop(self) -> None:
        """Does not wait for the thread: the store that it asks may be away for minutes."""
        self._stopped.set()

    def _count_images(self) -> None:
        for shard in self._shards:
            try:
                num_images = self._num_images_of(shard)
            except StorageError as error:
                if not self._stopped.is_set():
                    _log.warning("%s: so the metric of pending images stays too small", error)
                return
            if self._stopped.is_set():
                return
            with self._lock:
                self._num_images += num_images
            recorder().set(PENDING_IMAGES, self.num_pending)
