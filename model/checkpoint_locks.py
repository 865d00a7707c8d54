"""Processes of one machine that share a folder -> one that works on it, many that use it.

Both are locks of the kernel (flock), which are gone with the process that holds them, however it ended: nothing has to
be cleaned up after a kill, and the next one in the queue goes on. Knows nothing of what is in the folder.
"""

import contextlib
import fcntl
import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO

FIRST_NOTICE_S, NOTICE_EVERY_S = 2.0, 30.0

_WORK_LOCK, _USE_LOCK = "work.lock", "use.lock"
_POLL_S = 0.1
_log = logging.getLogger(__name__)
_used: dict[Path, IO[str]] = {}
_used_guard = threading.Lock()


@contextlib.contextmanager
def working_on(folder: Path, *, waits_for: Callable[[], str]) -> Iterator[None]:
    """Makes the folder if need be, and keeps every other thread and process of the machine from working on it.

    Args:
        waits_for: what the one that works there does and how far it is, for the log while this one waits.
    """
    with contextlib.ExitStack() as stack:
        lock = stack.enter_context(contextlib.closing(_locked(folder, waits_for)))
        lock.truncate(0)
        lock.write(f"process {os.getpid()} on {socket.gethostname()}")
        lock.flush()
        yield


def use(folder: Path) -> None:
    """Keeps the folder from being removed until this process ends. Call it while working on the folder.

    A process cannot tell when the last map of a weight file is gone, so that it does not try to.
    """
    with _used_guard:
        if folder not in _used or not _is_at(_used[folder], folder / _USE_LOCK):
            lock = (folder / _USE_LOCK).open("a+")
            fcntl.flock(lock, fcntl.LOCK_SH)
            _used[folder] = lock
        os.utime(folder / _USE_LOCK)


def last_used_s(folder: Path) -> float:
    """Seconds since the epoch; 0 where nobody has used it."""
    with contextlib.suppress(FileNotFoundError):
        return (folder / _USE_LOCK).stat().st_mtime
    return 0.0


@contextlib.contextmanager
def alone_with(folder: Path) -> Iterator[bool]:
    """Whether no process works on the folder or uses it; where that is so, none can begin to before the block ends."""
    with contextlib.ExitStack() as stack:
        try:
            for name in (_WORK_LOCK, _USE_LOCK):
                lock = stack.enter_context((folder / name).open("a+"))
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, FileNotFoundError, NotADirectoryError):
            yield False
            return
        yield True


def _locked(folder: Path, waits_for: Callable[[], str]) -> IO[str]:
    notice_at_s = time.monotonic() + FIRST_NOTICE_S
    while True:
        folder.mkdir(parents=True, exist_ok=True)
        try:
            lock = (folder / _WORK_LOCK).open("a+")
        except FileNotFoundError:
            continue  # removed between these two lines
        with contextlib.ExitStack() as stack:
            stack.callback(lock.close)
            while not _try_lock(lock):
                if time.monotonic() >= notice_at_s:
                    lock.seek(0)
                    _log.warning("waiting for %s: %s", lock.read() or "another process", waits_for())
                    notice_at_s = time.monotonic() + NOTICE_EVERY_S
                time.sleep(_POLL_S)
            if _is_at(lock, folder / _WORK_LOCK):
                stack.pop_all()
                return lock


def _try_lock(lock: IO[str]) -> bool:
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _is_at(lock: IO[str], path: Path) -> bool:
    """False if the folder was removed, and perhaps made anew, while somebody waited for a lock in it."""
    try:
        return os.path.samestat(os.fstat(lock.fileno()), path.stat())
    except FileNotFoundError:
        return False
