"""The one thread that works on a device: takes in what callers send, and lets tower and scheduler step by turns.

Knows threads and futures; neither prompts nor views.
"""

import atexit
import queue
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass

from torch import Tensor

from model.engine_stats import EngineStats
from model.parallel import RankGroup
from model.scheduler import Scheduler
from model.sequence import ImagePrefix, Sequence, fail
from model.vision_queue import VisionJob, VisionQueue

IDLE_S = 0.01
"""How long a rank with nothing to do waits for a request before it asks the others whether they have something."""


class EngineThread:
    """The thread and its inbox.

    Only the running thread refers to the scheduler, so that an engine dropped unclosed takes its cache along.
    """

    def __init__(
        self,
        scheduler: Scheduler,
        *,
        group: RankGroup | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        """Args:
        group: the ranks to step together with; all of them step while any has something to do.
        on_failure: with a group, what is done with the error of a step; the thread ends with it.
        """
        self._inbox: queue.SimpleQueue[Sequence | VisionJob | ClosedView | StatsRequest | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopped = False
        self._last_stats = EngineStats()
        self._thread = threading.Thread(
            target=self._run, args=(scheduler, group, on_failure), name="labelmill-engine", daemon=True
        )
        # A daemon, or the interpreter would wait for it for ever; closed before the interpreter goes down, or it could
        # be inside torch while that is taken apart.
        atexit.register(self.close)
        self._thread.start()

    def submit(self, item: "Sequence | VisionJob | ClosedView | StatsRequest") -> None:
        """Raises RuntimeError once the thread was told to stop: nobody would answer."""
        with self._lock:
            if self._stopped:
                raise RuntimeError("the engine is closed")
            self._inbox.put(item)

    def stats(self) -> EngineStats:
        """Of a closed engine, those it closed with."""
        request = StatsRequest(future=Future())
        try:
            self.submit(request)
        except RuntimeError:
            return self._last_stats
        return request.future.result()

    def stop(self) -> None:
        """Lets the thread end after the step it is in. Does not wait, so that a garbage collection may call it."""
        with self._lock:
            self._stopped = True
            self._inbox.put(None)

    def close(self) -> None:
        """Stops the thread and waits for it, except where it is called by the thread itself (a future's callback)."""
        self.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join()
            atexit.unregister(self.close)

    def _run(
        self, scheduler: Scheduler, group: RankGroup | None, on_failure: Callable[[Exception], None] | None
    ) -> None:
        vision = VisionQueue(scheduler.model)
        is_busy = False
        while group is not None or not self._stopped:  # ranks stop together, by what they agree on below
            self._take_in(scheduler, vision, patience_s=None if group is None else 0.0 if is_busy else IDLE_S)
            # Images are encoded as long as there is room to ask about them: encoded ones take memory while they wait.
            if not vision.is_idle and (vision.has_full_batch or scheduler.wants_more):
                began = time.perf_counter()
                scheduler.stats.add_vision(vision.step(), time.perf_counter() - began)
            if group is None:
                if not scheduler.is_idle:
                    self._step(scheduler)
                continue
            try:
                is_busy, is_stopping = group.any_of(not scheduler.is_idle, self._stopped)
                if is_stopping:
                    break
                if is_busy:
                    scheduler.step()
            except Exception as error:  # noqa: BLE001 - the other ranks cannot go on either
                assert on_failure is not None
                on_failure(error)
                break
        self._give_up(scheduler, vision)

    def _take_in(self, scheduler: Scheduler, vision: VisionQueue, *, patience_s: float | None) -> None:
        """All that has come; waits for something where there is nothing to do, so long at most (None: for ever)."""
        while True:
            is_idle = scheduler.is_idle and vision.is_idle and not self._stopped
            try:
                item = self._inbox.get(block=is_idle and patience_s != 0, timeout=patience_s or None)
            except queue.Empty:
                return
            if isinstance(item, Sequence):
                if item.prompt.images and item.image_sequence is None:
                    vision.add(_images_of(item, scheduler))
                else:
                    scheduler.add(item)
            elif isinstance(item, VisionJob):
                vision.add(item)
            elif isinstance(item, ClosedView):
                scheduler.close_prefix(item.prefix)
            elif isinstance(item, StatsRequest):
                item.future.set_result(_snapshot(scheduler))
            elif self._stopped:
                return

    def _give_up(self, scheduler: Scheduler, vision: VisionQueue) -> None:
        error = RuntimeError("the engine was closed")
        self._last_stats = _snapshot(scheduler)
        scheduler.fail_all(error)
        vision.fail_all(error)
        while not self._inbox.empty():
            item = self._inbox.get()
            if isinstance(item, StatsRequest):
                item.future.set_result(self._last_stats)
            elif isinstance(item, VisionJob | Sequence):
                fail(item.future, error)

    @staticmethod
    def _step(scheduler: Scheduler) -> None:
        try:
            scheduler.step()
        except Exception as error:  # noqa: BLE001 - handed to every request that was in it; the thread lives on
            scheduler.fail_running(error)


@dataclass(frozen=True, kw_only=True)
class ClosedView:
    prefix: ImagePrefix


@dataclass(frozen=True, kw_only=True)
class StatsRequest:
    future: "Future[EngineStats]"


def _snapshot(scheduler: Scheduler) -> EngineStats:
    return scheduler.stats.snapshot(
        num_shared_tokens=scheduler.admission.num_shared_tokens,
        num_preemptions=scheduler.admission.num_preemptions,
        expert_loads=scheduler.model.language.expert_loads(),
    )


def _images_of(sequence: Sequence, scheduler: Scheduler) -> VisionJob:
    """What is to be encoded before a sequence of no view can run."""

    def deliver(image_sequence: Tensor) -> None:
        sequence.image_sequence = image_sequence
        scheduler.add(sequence)

    return VisionJob(images=sequence.prompt.images, deliver=deliver, future=sequence.future)
