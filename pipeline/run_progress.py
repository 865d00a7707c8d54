"""A run's receipts, and how much it has to do -> its `Progress` at any moment, for its callers and for its lease.

Asked from the thread that renews the lease while the run adds receipts. What it holds does not grow with the images.
"""

import contextlib
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from pipeline import expert_load
from pipeline.engine_work import ENGINE_SUMS, cache_use, occupancy
from pipeline.progress import Phase, Progress
from pipeline.receipt import COUNTS, read_receipt
from pipeline.storage import StorageError
from pipeline.throughput import Throughput
from pipeline.timeline import Timeline

_COURSE = ("num_images", "num_output_tokens")
_log = logging.getLogger(__name__)


class RunProgress:
    """`phase` is set by the run."""

    def __init__(self, num_images: int, *, clock: Callable[[], float] = time.monotonic) -> None:
        """num_images: of the output, those of earlier runs included."""
        self.phase: Phase = "starting"
        self._num_images, self._clock = num_images, clock
        self._lock = threading.Lock()
        self._throughput = Throughput(clock=clock)
        self._timeline, self._began = Timeline(_COURSE), clock()
        self._labels_by_recipe: Counter[str] = Counter()
        self._quarantined_by_kind: Counter[str] = Counter()
        self._expert_loads: expert_load.Loads = ()
        self._num_to_label = 0
        self._all_counted = False

    def begin_labeling(self) -> None:
        """Speeds count from here on."""
        with self._lock:
            self.phase = "labeling"
            self._throughput, self._began = Throughput(clock=self._clock), self._clock()

    def expect(self, num_images: int, *, more_follow: bool = False) -> None:
        """So many images more are this run's to label.

        Args:
            more_follow: other shards are still to be counted; until they are, nobody says when the run ends.
        """
        with self._lock:
            self._num_to_label += num_images
            self._all_counted = not more_follow

    @property
    def num_pending(self) -> int:
        """Of the images counted so far, those that are not committed yet."""
        with self._lock:
            return self._num_pending()

    def _num_pending(self) -> int:
        return max(0, self._num_to_label - int(self._throughput.sums.get("num_images", 0)))

    def add(self, receipt: Mapping[str, Any]) -> None:
        """Of one block, as the sink wrote it."""
        found = read_receipt(receipt)
        sums = {name: value for name, value in found["engine"].items() if name in ENGINE_SUMS}
        with self._lock:
            self._throughput.add({**{name: found[name] for name in COUNTS}, **sums})
            self._expert_loads = expert_load.added(self._expert_loads, found["engine"].get("expert_loads", ()))
            self._timeline.add(self._clock() - self._began, self._throughput.sums)
            self._labels_by_recipe.update(found["labels_by_recipe"])
            self._quarantined_by_kind.update(found["quarantined_by_kind"])

    def now(self) -> Progress:
        with self._lock:
            sums, lately = self._throughput.sums, self._throughput.of_window()
            counts = {name: int(sums.get(name, 0)) for name in COUNTS}
            pending = self._num_pending() if self._all_counted else None
            per_s, since_start = self._throughput.per_s, self._throughput.per_s_since_start
            return Progress(
                phase=self.phase,
                num_images_done=counts["num_images"],
                num_images=self._num_images,
                num_pending_images=pending,
                num_labels=counts["num_labels"],
                num_quarantined_images=counts["num_quarantined_images"],
                num_prompt_tokens=counts["num_prompt_tokens"],
                num_output_tokens=counts["num_output_tokens"],
                labels_by_recipe=dict(self._labels_by_recipe),
                quarantined_by_kind=dict(self._quarantined_by_kind.most_common()),
                images_per_s=per_s("num_images"),
                labels_per_s=per_s("num_labels"),
                prompt_tokens_per_s=per_s("num_prompt_tokens"),
                output_tokens_per_s=per_s("num_output_tokens"),
                occupancy=occupancy(lately),
                cache_use=cache_use(lately),
                images_per_s_since_start=since_start("num_images"),
                output_tokens_per_s_since_start=since_start("num_output_tokens"),
                timeline=self._timeline.as_dict(),
                expert_imbalance=expert_load.imbalance(self._expert_loads),
                eta_s=None if pending is None else self._throughput.eta_s("num_images", pending),
            )

    def summary(self, labeling_s: float) -> dict[str, Any]:
        """Of the whole run, for its summary: counts, speeds, and how full its engines were."""
        with self._lock:
            sums = self._throughput.sums
            counts = {name: int(sums.get(name, 0)) for name in COUNTS}
            speeds = {
                f"{name.removeprefix('num_')}_per_s": round(counts[name] / labeling_s, 3)
                for name in ("num_images", "num_labels", "num_prompt_tokens", "num_output_tokens")
            }
            return {
                **counts,
                **speeds,
                "occupancy": _rounded(occupancy(sums)),
                "cache_use": _rounded(cache_use(sums)),
                "labels_by_recipe": dict(self._labels_by_recipe),
                "quarantined_by_kind": dict(self._quarantined_by_kind.most_common()),
                "timeline": self._timeline.as_dict(),
                "expert_imbalance": expert_load.imbalance(self._expert_loads),
                "expert_loads": [list(of_layer) for of_layer in self._expert_loads],
            }


@contextlib.contextmanager
def counting(
    progress: RunProgress,
    shards: Sequence[str],
    num_images_of: Callable[[str], int],
    *,
    on_count: Callable[[], None] = lambda: None,
) -> Iterator[threading.Thread]:
    """Counts in a thread what the run has to label: with thousands of shards that outlasts the first labels.

    The end does not wait for the thread, as the store that it asks may be away for minutes: what it finds later is not
    told.

    Args:
        num_images_of: a shard, how many of its images were pending when the run began.
        on_count: called in that thread after each shard, when the progress knows of it.
    """
    over = threading.Event()

    def count() -> None:
        for shard in shards:
            try:
                num_images = num_images_of(shard)
            except StorageError as error:
                # Progress without an ETA is no reason to end a run; a store that stays away ends it elsewhere.
                if not over.is_set():
                    _log.warning("%s: so the images that are pending are not all counted", error)
                return
            if over.is_set():
                return
            progress.expect(num_images, more_follow=True)
            on_count()
        progress.expect(0)

    thread = threading.Thread(target=count, name="pending-images", daemon=True)
    thread.start()
    try:
        yield thread
    finally:
        over.set()


def _rounded(share: float | None) -> float | None:
    return None if share is None else round(share, 3)
