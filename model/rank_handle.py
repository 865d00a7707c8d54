"""One rank as its engine sees it: a child process, and futures of what it was asked.

The process lives as long as this one: it ends when the socket to it closes, however this process ends.
"""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from multiprocessing.connection import Connection, wait
from pathlib import Path
from typing import Any

from model.rank_messages import FromEngine, GaveUp, Piece, RankSettings, Ready, Reply, Stop
from model.sequence import deliver, fail
from model.text_stream import OnText

END_GRACE_S = 5.0
"""So long a rank may take to end once it was told to; it is killed then."""


class EngineDiedError(RuntimeError):
    """A rank of the engine ended, and the others with it: the engine has to be made anew."""


class RankHandle:
    """Starts the process; `all_ready` waits for what all ranks have loaded."""

    def __init__(self, settings: RankSettings, *, on_end: Callable[[str], None]) -> None:
        """on_end: called once, from another thread, with the reason, when the process has ended by itself."""
        self.rank = settings.share.rank
        self._on_end = on_end
        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "model.rank_process", str(theirs.fileno())],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": _with_this_package(os.environ.get("PYTHONPATH", ""))},
            )
        self.connection = Connection(ours.detach())
        self.connection.send(settings)
        self._lock = threading.Lock()
        self._waiting: dict[int, Future[Any]] = {}
        self._listening: dict[int, OnText] = {}
        self._is_stopped = False
        self._gave_up = ""
        self._reader: threading.Thread | None = None

    @property
    def pid(self) -> int:
        return self._process.pid

    def receive_ready(self) -> Ready:
        """Raises EngineDiedError where the process ended before it could say anything."""
        try:
            ready: Ready = self.connection.recv()
        except (EOFError, OSError):
            raise EngineDiedError(self._reason()) from None
        self._reader = threading.Thread(target=self._read, name=f"rank-{self.rank}", daemon=True)
        self._reader.start()
        return ready

    def ask(self, message: FromEngine, on_text: OnText | None = None) -> Future[Any]:
        """A future of the reply's result; pieces of text before it go to `on_text`, on a thread of the handle.

        Raises EngineDiedError where the process is gone.
        """
        future: Future[Any] = Future()
        with self._lock:
            if self._is_stopped:
                raise EngineDiedError(f"rank {self.rank} has ended")
            self._waiting[message.number] = future
            if on_text is not None:
                self._listening[message.number] = on_text
            self._send(message)
        return future

    def tell(self, message: FromEngine) -> None:
        """As `ask`, for what is not answered; a process that is gone need not hear it."""
        with self._lock:
            if not self._is_stopped:
                self._send(message)

    def stop(self, error: Exception) -> None:
        """Tells the process to end; whoever still waits gets the error. Does not wait."""
        with self._lock:
            if not self._is_stopped:
                self._is_stopped = True
                self._send(Stop())
            waiting, self._waiting, self._listening = list(self._waiting.values()), {}, {}
        for future in waiting:
            fail(future, error)

    def kill(self) -> None:
        self._process.kill()

    def join(self) -> None:
        """After `stop`: waits for the end of the process, `END_GRACE_S` at most, and kills it then."""
        try:
            self._process.wait(END_GRACE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        if self._reader is not None and threading.current_thread() is not self._reader:
            self._reader.join()
        self.connection.close()

    def _send(self, message: FromEngine) -> None:
        with contextlib.suppress(OSError):  # it has just ended; the reader sees so as well, and tells everybody
            self.connection.send(message)

    def _read(self) -> None:
        while True:
            try:
                reply: Reply | Piece | GaveUp = self.connection.recv()
            except (EOFError, OSError):
                break
            if isinstance(reply, GaveUp):
                self._gave_up = reply.reason
                continue
            if isinstance(reply, Piece):
                if (on_text := self._listening.get(reply.number)) is not None:
                    on_text(reply.text)
                continue
            with self._lock:
                future = self._waiting.pop(reply.number, None)
                self._listening.pop(reply.number, None)
            if future is None:
                continue
            if reply.error is not None:
                fail(future, reply.error)
            else:
                deliver(future, reply.result)
        if not self._is_stopped:
            self._on_end(self._reason())

    def _reason(self) -> str:
        try:
            code = self._process.wait(END_GRACE_S)
        except subprocess.TimeoutExpired:
            return f"rank {self.rank} (process {self.pid}) closed its connection"
        how = f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
        if code == -signal.SIGKILL:
            how += ", as the kernel does it where memory runs out"
        if self._gave_up:
            how = f"gave up: {self._gave_up}"
        return f"rank {self.rank} (process {self.pid}) {how}"


def all_ready(ranks: Sequence[RankHandle]) -> list[Ready]:
    """What each has loaded, or why it cannot, in the order of the ranks.

    Where one cannot, the others may be about to say the same, or may wait for it in vain: they get a little time, so
    that who is heard does not depend on the load of the machine.

    Raises EngineDiedError where one has ended without a word, and none of the others says what was wrong: where one
    ends, the others are ended with it, and whether their connections or its words come first is a matter of chance.
    """
    waiting = {rank.connection: rank for rank in ranks}
    ready: dict[int, Ready] = {}
    patience_s: float | None = None
    death: EngineDiedError | None = None
    while waiting and (heard := wait(list(waiting), patience_s)):
        for connection in heard:
            rank = waiting.pop(connection)  # type: ignore[call-overload]
            try:
                ready[rank.rank] = rank.receive_ready()
            except EngineDiedError as error:
                death, patience_s = death or error, END_GRACE_S
            else:
                patience_s = END_GRACE_S if ready[rank.rank].error else patience_s
    if death is not None and not any(one.error for one in ready.values()):
        raise death
    return [ready[number] for number in sorted(ready)]


def _with_this_package(python_path: str) -> str:
    """The child imports this very package, from whatever folder it is started."""
    here = str(Path(__file__).resolve().parent.parent)
    return os.pathsep.join([here, *filter(None, python_path.split(os.pathsep))])
