"""What every program of a sandboxed process does, whatever it is asked: it limits itself, then answers.

Started by `pipeline.child_process`, which holds the other end of the socket that is the standard input. Whatever a
library prints goes nowhere. Messages begin with their lengths: a reply is 4 bytes of length, that much JSON, and bytes
whose number the JSON tells.
"""

import json
import os
import resource
import signal
import socket
import struct
from collections.abc import Callable
from typing import TypeVar

READY = b"ready\n"
"""Sent once, before the first request is read."""
OUT_OF_MEMORY_STATUS = 71
"""Exit status where memory ran out between requests or in the midst of a reply, so that nothing could be said."""
REPLY_HEADER = struct.Struct(">I")
_MAX_OPEN_FILES = 16
_ALARM_MARGIN_S = 1.0
"""The sandbox kills first; where it has been killed itself, the alarm ends what hangs."""

Request = TypeVar("Request")


def serve(
    receive: Callable[[socket.socket], Request | None],
    reply: Callable[[socket.socket, Request], None],
    *,
    timeout_s: float,
    memory_mb: int,
) -> None:
    """Answers requests until the sandbox closes its end; libraries that open files are loaded by now.

    Args:
        receive: the next request; None at the end of the stream.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the sandbox decides
    _limit_resources(memory_mb)
    channel = _take_standard_streams()
    try:
        channel.sendall(READY)
        while (request := receive(channel)) is not None:
            signal.setitimer(signal.ITIMER_REAL, timeout_s + _ALARM_MARGIN_S)
            reply(channel, request)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except MemoryError:
        os._exit(OUT_OF_MEMORY_STATUS)
    except ConnectionError:
        os._exit(0)  # the sandbox is gone


def receive_exactly(channel: socket.socket, num_bytes: int) -> bytes | None:
    """None where the stream ends before."""
    data = channel.recv(num_bytes, socket.MSG_WAITALL) if num_bytes else b""
    return data if len(data) == num_bytes else None


def send_fields(channel: socket.socket, fields: dict[str, object]) -> None:
    data = json.dumps(fields).encode()
    channel.sendall(REPLY_HEADER.pack(len(data)) + data)


def _limit_resources(memory_mb: int) -> None:
    wanted = {
        resource.RLIMIT_AS: memory_mb * 1024**2,
        resource.RLIMIT_CORE: 0,
        resource.RLIMIT_FSIZE: 0,
        resource.RLIMIT_NOFILE: _MAX_OPEN_FILES,
    }
    for kind, limit in wanted.items():
        _, hard = resource.getrlimit(kind)
        limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
        resource.setrlimit(kind, (limit, limit))


def _take_standard_streams() -> socket.socket:
    """The socket that is the standard input, out of reach of what reads or prints there."""
    channel = socket.socket(fileno=os.dup(0))
    nowhere = os.open(os.devnull, os.O_RDWR)
    for stream in (0, 1, 2):
        os.dup2(nowhere, stream)
    os.close(nowhere)
    return channel
