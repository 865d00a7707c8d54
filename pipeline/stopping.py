"""Ctrl-C and SIGTERM -> a run that ends what it has begun, and no more than that.

The first signal asks: `on_stop` is called, and the block goes on. A second one, or the end of the grace period, raises
KeyboardInterrupt in the block. Knows no pipeline.
"""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Stopping:
    """Whether the block was asked to end."""

    def __init__(self) -> None:
        self.requested = threading.Event()
        self.over = threading.Event()
        self.time_is_up = False


@contextmanager
def stop_on_signal(on_stop: Callable[[], None], *, grace_s: float) -> Iterator[Stopping]:
    """Outside of the main thread, where Python delivers no signals, this does nothing."""
    stopping = Stopping()
    if threading.current_thread() is not threading.main_thread():
        yield stopping
        return

    def handle(signum: int, frame: FrameType | None) -> None:
        if stopping.requested.is_set() or stopping.time_is_up:
            raise KeyboardInterrupt
        stopping.requested.set()

    # `on_stop` runs in a thread: a handler may interrupt the main thread in the middle of whatever on_stop needs.
    watcher = threading.Thread(target=_watch, args=(stopping, on_stop, grace_s), name="stopping", daemon=True)
    before = {number: signal.signal(number, handle) for number in _SIGNALS}
    watcher.start()
    try:
        yield stopping
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        stopping.over.set()
        stopping.requested.set()  # lets the watcher go
        watcher.join()


def _watch(stopping: Stopping, on_stop: Callable[[], None], grace_s: float) -> None:
    stopping.requested.wait()
    if stopping.over.is_set():
        return
    try:
        on_stop()
    except Exception:  # noqa: BLE001 - whoever was to end in peace was not told, so that there is nothing to wait for
        grace_s = 0
    if not stopping.over.wait(grace_s):
        stopping.time_is_up = True
        # To the main thread: a signal that another one takes does not wake it from a wait.
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGTERM)
