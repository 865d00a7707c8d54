"""Encoded image bytes -> tiles, in a child process that may crash, hang or run out of memory without harm.

Does not know what an image is: the child (`pipeline.decode_child`) does. It bounds what a decoder can take and break,
and keeps credentials from it. It is no jail: a decoder that a file has taken over can still open files and connections.
"""

import dataclasses
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from pipeline.decode_child import (
    OUT_OF_MEMORY_STATUS,
    READY,
    REPLY_HEADER,
    REQUEST_HEADER,
    DecodeSettings,
    PreparedImage,
)
from pipeline.metadata import is_metadata
from schemas.errors import ErrorKind, RowFailure
from schemas.rows import Mark

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


class DecodeSandbox:
    """One child, started with the first image and again after each one that ended it. For one thread at a time."""

    def __init__(self, settings: DecodeSettings, *, child_module: str = "pipeline.decode_child") -> None:
        """`child_module` is what the child runs: a module that calls `pipeline.decode_child.run`."""
        self._settings, self._child_module = settings, child_module
        self._child: _Child | None = None

    def prepare(self, encoded: bytes, *, dynamic: bool = True, marks: Sequence[Mark] = ()) -> PreparedImage:
        """Decodes and tiles one image file; the rest as for `pipeline.decode_child.prepare_image`.

        An image that costs its child is tried once more in a fresh one: the first may have been worn out.

        Raises:
            RowFailure: what `pipeline.decode_child.prepare_image` raises, or DECODER_CRASHED, DECODER_TIMED_OUT,
                DECODER_OUT_OF_MEMORY.
            SandboxError: there is no child, and the next image will have none either.
        """
        try:
            return self._prepare_once(encoded, dynamic, marks)
        except RowFailure as failure:
            if failure.error.kind not in _TRIED_AGAIN:
                raise
        return self._prepare_once(encoded, dynamic, marks)

    def close(self) -> None:
        """Ends the child. The next image starts another one."""
        if self._child is not None:
            self._child.end()
            self._child = None

    def _prepare_once(self, encoded: bytes, dynamic: bool, marks: Sequence[Mark]) -> PreparedImage:
        if self._child is None:
            self._child = _Child(self._settings, self._child_module)
        child, self._child = self._child, None
        try:
            prepared = child.ask(encoded, dynamic, marks)
        except RowFailure as failure:
            if failure.error.kind in _TRIED_AGAIN:
                child.kill()
            else:
                self._child = child
            raise
        except BaseException:
            child.kill()  # an answer may still come, and the next image would get it
            raise
        self._child = child
        return prepared


class _Child:
    """A running child and this side of the socket that is its standard input."""

    def __init__(self, settings: DecodeSettings, module: str) -> None:
        """Raises SandboxError."""
        self._settings = settings
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

    def ask(self, encoded: bytes, dynamic: bool, marks: Sequence[Mark]) -> PreparedImage:
        """Raises RowFailure; after one of `_TRIED_AGAIN` the child is of no further use."""
        deadline_s = time.monotonic() + self._settings.timeout_s
        try:
            of_marks = json.dumps([dataclasses.asdict(mark) for mark in marks]).encode() if marks else b""
            self._send(REQUEST_HEADER.pack(len(encoded), dynamic, len(of_marks)) + of_marks, deadline_s)
            self._send(encoded, deadline_s)
            fields = self._receive_fields(deadline_s)
            if "kind" in fields:
                raise self._reported(fields)
            return self._receive_image(fields, dynamic, len(marks), deadline_s)
        except TimeoutError:
            raise _timed_out(self._settings) from None
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
        (num_bytes,) = REPLY_HEADER.unpack(self._receive(REPLY_HEADER.size, deadline_s))
        if num_bytes > _MAX_FIELDS_BYTES:
            raise ValueError(f"{num_bytes} bytes of JSON")
        fields = json.loads(self._receive(num_bytes, deadline_s))
        if not isinstance(fields, dict):
            raise TypeError(f"{type(fields).__name__} instead of an object")
        return fields

    def _receive_image(self, fields: dict[str, Any], dynamic: bool, num_marks: int, deadline_s: float) -> PreparedImage:
        """The child may have been taken over by what it decoded: nothing it says is believed unchecked."""
        width, height = (int(side) for side in fields["size"])
        if not (width > 0 and height > 0 and width * height <= self._settings.max_pixels):
            raise ValueError(f"a size of {width}x{height} pixels")
        grid = self._grid(fields["grid"], dynamic)
        marked_grids = tuple(self._grid(of_one, True) for of_one in fields["marked_grids"])
        if len(marked_grids) != num_marks:
            raise ValueError(f"{len(marked_grids)} pictures with marks")
        if not is_metadata(fields["metadata"]):
            raise ValueError("metadata that is none")
        side = self._settings.candidate_resolutions[0][0]
        grids = () if self._settings.headers_only else (grid, *marked_grids)
        num_tiles = sum(1 + wide * high for wide, high in grids)
        tiles = np.empty((num_tiles, side, side, 3), dtype=np.uint8)
        self._receive_into(tiles.reshape(-1).data, deadline_s)
        return PreparedImage(
            size=(width, height),
            grid=grid,
            flags=tuple(str(flag) for flag in fields["flags"]),
            metadata=tuple((name, value) for name, value in fields["metadata"]),
            marked_grids=marked_grids,
            tiles=tiles,
        )

    def _grid(self, grid: Any, dynamic: bool) -> tuple[int, int]:
        tiles_wide, tiles_high = (int(count) for count in grid)
        side = self._settings.candidate_resolutions[0][0]
        candidates = self._settings.candidate_resolutions if dynamic else ((side, side),)
        if (tiles_wide * side, tiles_high * side) not in candidates:
            raise ValueError(f"a grid of {tiles_wide}x{tiles_high} tiles")
        return tiles_wide, tiles_high

    def _reported(self, fields: dict[str, Any]) -> RowFailure:
        kind, message = ErrorKind(fields["kind"]), str(fields["message"])
        if kind is ErrorKind.DECODER_OUT_OF_MEMORY:
            message += f"; decode_memory_mb is {self._settings.memory_mb}"
        return RowFailure(kind, message)

    def _how_it_ended(self) -> RowFailure:
        status, limit_mb = self._wait_or_kill(), self._settings.memory_mb
        if status == OUT_OF_MEMORY_STATUS:
            return RowFailure(ErrorKind.DECODER_OUT_OF_MEMORY, f"memory ran out; decode_memory_mb is {limit_mb}")
        if status == -signal.SIGKILL:
            message = (
                f"the decoding process was killed within decode_memory_mb = {limit_mb}: the machine's memory ran out"
            )
            return RowFailure(ErrorKind.DECODER_OUT_OF_MEMORY, message)
        if status == -signal.SIGALRM:
            return _timed_out(self._settings)
        end = f"was ended by {signal.Signals(-status).name}" if status < 0 else f"exited with status {status}"
        return RowFailure(ErrorKind.DECODER_CRASHED, f"the decoding process {end}, twice")


def _start(settings: DecodeSettings, module: str, childs_end: socket.socket) -> subprocess.Popen[bytes]:
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


def _timed_out(settings: DecodeSettings) -> RowFailure:
    message = f"decoding and tiling took longer than decode_timeout_s = {settings.timeout_s:g}, twice"
    return RowFailure(ErrorKind.DECODER_TIMED_OUT, message)
