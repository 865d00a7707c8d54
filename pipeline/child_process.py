"""A program in a process of its own, which may crash, hang or run out of memory without harm.

Does not know what the program is asked, nor by what messages: that is for whoever derives from `ChildProcess`. It
bounds what a library can take and break, and keeps credentials from it. It is no jail: a library that a file has taken
over can still open files and connections.
"""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar

from pipeline.child_program import OUT_OF_MEMORY_STATUS, READY, REPLY_HEADER
from schemas.errors import ErrorKind, RowFailure

_START_TIMEOUT_S = 120.0
"""Importing takes a fifth of a second, and much longer from a cold network disk."""
_EXIT_TIMEOUT_S = 1.0
_MAX_FIELDS_BYTES = 65_536
_PASSED_VARIABLES = ("PATH", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH", "PYTHONHOME")
"""Of the environment: credentials stay here."""
_CHILD_VARIABLES = {
    # Threads and arenas that nobody uses would count against the address space.
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "MALLOC_ARENA_MAX": "1",
    # Keep the memory of one image for the next: giving it back costs 5,000 page faults, a fifth of the time, each time.
    "MALLOC_MMAP_THRESHOLD_": str(32 * 1024**2),
    "MALLOC_TRIM_THRESHOLD_": str(128 * 1024**2),
}
_TRIED_AGAIN = {ErrorKind.DECODER_CRASHED, ErrorKind.DECODER_TIMED_OUT, ErrorKind.DECODER_OUT_OF_MEMORY}


class SandboxError(RuntimeError):
    """No child could be started: a fault of the installation or the machine, never of an image."""


class ChildSettings(Protocol):
    """A dataclass of what JSON can hold: the program's one argument."""

    @property
    def timeout_s(self) -> float: ...

    @property
    def memory_mb(self) -> int: ...


T = TypeVar("T")


class ChildProcess:
    """A running child and this side of the socket that is its standard input."""

    what = "the work"
    """What it does, for messages."""

    def __init__(self, settings: ChildSettings, module: str) -> None:
        """`module` calls `pipeline.child_program.serve`. Raises SandboxError."""
        self._limits = settings
        self._channel, childs_end = socket.socketpair()
        with childs_end:
            try:
                self._process = _start(settings, module, childs_end)
            except OSError as error:
                self._channel.close()
                raise SandboxError(f"no process for decoding could be started: {error}") from error
        try:
            self._await_ready(module)
        except BaseException:
            self.kill()
            raise

    def exchange(self, messages: Callable[[float], T]) -> T:
        """Sends and receives by a deadline of the monotonic clock, which is handed to `messages`.

        Raises:
            RowFailure: after one of `_TRIED_AGAIN` the child is of no further use.
        """
        try:
            return messages(time.monotonic() + self._limits.timeout_s)
        except TimeoutError:
            raise self._timed_out() from None
        except ConnectionError:
            raise self._how_it_ended() from None
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            message = f"the decoding process gave an answer that is none: {type(error).__name__}: {error}"
            raise RowFailure(ErrorKind.DECODER_CRASHED, message[:300]) from error

    def end(self) -> None:
        """Lets the child see the end of its input; kills it where that does not help."""
        self._channel.close()
        self._wait_or_kill()

    def kill(self) -> None:
        self._channel.close()
        self._process.kill()
        self._process.wait()

    def _await_ready(self, module: str) -> None:
        try:
            is_ready = self._receive(len(READY), time.monotonic() + _START_TIMEOUT_S) == READY
        except (TimeoutError, ConnectionError):
            is_ready = False
        if not is_ready:
            raise SandboxError(f"python -m {module} did not start: what it printed is in the output of this process")

    def _wait_or_kill(self) -> int:
        try:
            return self._process.wait(_EXIT_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _timed_out(self) -> RowFailure:
        message = f"{self.what} took longer than decode_timeout_s = {self._limits.timeout_s:g}, twice"
        return RowFailure(ErrorKind.DECODER_TIMED_OUT, message)

    def _send(self, data: bytes, deadline_s: float) -> None:
        self._channel.settimeout(_seconds_until(deadline_s))
        self._channel.sendall(data)

    def _receive(self, num_bytes: int, deadline_s: float) -> bytearray:
        data = bytearray(num_bytes)
        self._receive_into(memoryview(data), deadline_s)
        return data

    def _receive_into(self, view: memoryview, deadline_s: float) -> None:
        while view:
            self._channel.settimeout(_seconds_until(deadline_s))
            num_bytes = self._channel.recv_into(view)
            if num_bytes == 0:
                raise ConnectionResetError("the child has closed its end")
            view = view[num_bytes:]

    def _receive_fields(self, deadline_s: float) -> dict[str, Any]:
        """The child may have been taken over by what it read: nothing it says may be believed unchecked.

        Raises RowFailure where it reports one.
        """
        (num_bytes,) = REPLY_HEADER.unpack(self._receive(REPLY_HEADER.size, deadline_s))
        if num_bytes > _MAX_FIELDS_BYTES:
            raise ValueError(f"{num_bytes} bytes of JSON")
        fields = json.loads(self._receive(num_bytes, deadline_s))
        if not isinstance(fields, dict):
            raise TypeError(f"{type(fields).__name__} instead of an object")
        if "kind" in fields:
            raise self._reported(fields)
        return fields

    def _reported(self, fields: dict[str, Any]) -> RowFailure:
        kind, message = ErrorKind(fields["kind"]), str(fields["message"])
        if kind is ErrorKind.DECODER_OUT_OF_MEMORY:
            message += f"; decode_memory_mb is {self._limits.memory_mb}"
        return RowFailure(kind, message)

    def _how_it_ended(self) -> RowFailure:
        status, limit_mb = self._wait_or_kill(), self._limits.memory_mb
        if status == OUT_OF_MEMORY_STATUS:
            return RowFailure(ErrorKind.DECODER_OUT_OF_MEMORY, f"memory ran out; decode_memory_mb is {limit_mb}")
        if status == -signal.SIGKILL:
            message = (
                f"the decoding process was killed within decode_memory_mb = {limit_mb}: the machine's memory ran out"
            )
            return RowFailure(ErrorKind.DECODER_OUT_OF_MEMORY, message)
        if status == -signal.SIGALRM:
            return self._timed_out()
        end = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        return RowFailure(ErrorKind.DECODER_CRASHED, f"the decoding process {end}, twice")


def _start(settings: ChildSettings, module: str, childs_end: socket.socket) -> subprocess.Popen[bytes]:
    assert dataclasses.is_dataclass(settings), "settings are sent as JSON"
    assert not isinstance(settings, type)
    # -P: no file of the working folder may take a library's place.
    return subprocess.Popen(
        [sys.executable, "-P", "-m", module, json.dumps(dataclasses.asdict(settings))],
        stdin=childs_end.fileno(),
        stdout=subprocess.DEVNULL,
        env=_environment(),
        start_new_session=True,  # Ctrl-C at a terminal is the run's business
    )


def _environment() -> dict[str, str]:
    passed = {name: os.environ[name] for name in _PASSED_VARIABLES if name in os.environ}
    # As here: a cluster may have put the code on sys.path alone. "" stands for the working folder.
    search_path = os.pathsep.join(path or os.getcwd() for path in sys.path)
    return passed | _CHILD_VARIABLES | {"PYTHONPATH": search_path}


def _seconds_until(deadline_s: float) -> float:
    remaining_s = deadline_s - time.monotonic()
    if remaining_s <= 0:
        raise TimeoutError
    return remaining_s


Child = TypeVar("Child", bound=ChildProcess)


class Sandbox(Generic[Child]):
    """One child, started with the first request and again after each one that ended it. For one thread at a time."""

    def __init__(self, start: Callable[[], Child]) -> None:
        self._start = start
        self.child: Child | None = None

    def ask(self, request: Callable[[Child], T]) -> T:
        """What costs its child is tried once more in a fresh one: the first may have been worn out.

        Raises:
            RowFailure: what the child reports, or DECODER_CRASHED, DECODER_TIMED_OUT, DECODER_OUT_OF_MEMORY.
            SandboxError: there is no child, and the next request will have none either.
        """
        try:
            return self._ask_once(request)
        except RowFailure as failure:
            if failure.error.kind not in _TRIED_AGAIN:
                raise
        return self._ask_once(request)

    def close(self) -> None:
        """Ends the child. The next request starts another one."""
        if self.child is not None:
            self.child.end()
            self.child = None

    def _ask_once(self, request: Callable[[Child], T]) -> T:
        child, self.child = self.child or self._start(), None
        try:
            answer = request(child)
        except RowFailure as failure:
            if failure.error.kind in _TRIED_AGAIN:
                child.kill()
            else:
                self.child = child
            raise
        except BaseException:
            child.kill()  # an answer may still come, and the next request would get it
            raise
        self.child = child
        return answer
