"""Ctrl-C and SIGTERM -> a run that ends what it has begun, and no more than that.

The first signal, or whoever sets `Stopping.requested`, asks: `on_stop` is called, and the block goes on. A second
signal, or the end of the grace period, raises KeyboardInterrupt in the block. Knows no pipeline.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_REPEAT_S = 1.0
"""A signal that arrives between two bytecodes, just before the block enters a wait, does not end that wait."""


class Stopping:
    """Whether the block was asked to end; who sets `requested` asks as a signal does."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.over = threading.Event()
        self.interrupted = threading.Event()
        """KeyboardInterrupt was raised in the block."""
        self.time_is_up = False
        """The block was ended because its grace period is over."""


@contextmanager
def stop_on_signal(on_stop: Callable[[], None], *, grace_s: float) -> Iterator[Stopping]:
    """Outside of the main thread, where Python delivers no signals, and a thread cannot be woken from a wait, only
    `Stopping.requested` asks, and the block is left to end by itself."""
    stopping = Stopping()
    in_main_thread = threading.current_thread() is threading.main_thread()

    def handle(signum: int, frame: FrameType | None) -> None:
        if stopping.over.is_set():
            return
        if stopping.requested.is_set() or stopping.time_is_up:
            stopping.interrupted.set()
            raise KeyboardInterrupt
        stopping.requested.set()

    # `on_stop` runs in a thread: a handler may interrupt the main thread in the middle of whatever on_stop needs.
    grace = grace_s if in_main_thread else None
    watcher = threading.Thread(target=_watch, args=(stopping, on_stop, grace), name="stopping", daemon=True)
    before = {number: signal.signal(number, handle) for number in _SIGNALS} if in_main_thread else {}
    watcher.start()
    try:
        yield stopping
    finally:
        stopping.over.set()
        stopping.requested.set()  # lets the watcher go
        watcher.join()
        # Not before the watcher has ended: a signal of its own would end the process.
        for number, handler in before.items():
            signal.signal(number, handler)


def _watch(stopping: Stopping, on_stop: Callable[[], None], grace_s: float | None) -> None:
    stopping.requested.wait()
    if stopping.over.is_set():
        return
    try:
        on_stop()
    except Exception:  # noqa: BLE001 - whoever was to end in peace was not told, so that there is nothing to wait for
        grace_s = None if grace_s is None else 0
    if grace_s is not None and not stopping.over.wait(grace_s):
        stopping.time_is_up = True
        while not (stopping.over.is_set() or stopping.interrupted.is_set()):
            # To the main thread: a signal that another one takes does not wake it from a wait.
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
            stopping.interrupted.wait(_REPEAT_S)
