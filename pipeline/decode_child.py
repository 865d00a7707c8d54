"""The program of one decoding process: encoded images in at its standard input, their tiles out of it again.

Started by `pipeline.sandbox`, which holds the other end of the socket. It limits itself before it looks at any image,
and imports nothing but what decoding needs. Whatever a decoder prints goes nowhere.

Messages begin with their length. A request is 8 bytes of length, one that says whether to tile, and the file. A reply
is 4 bytes of length, that much JSON ({"size", "grid", "flags"}, or {"kind", "message"} of a failure), and the bytes of
the tiles, whose number the grid tells.
"""

import json
import os
import resource
import signal
import socket
import struct
import sys
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import AvifImagePlugin, Image

from model.tiling import Resolution, tile_image
from pipeline.decode import decode_image
from schemas.errors import ErrorKind, RowFailure

READY = b"ready\n"
"""Sent once, before the first request is read."""
OUT_OF_MEMORY_STATUS = 71
"""Exit status where memory ran out between images or in the midst of a reply, so that nothing could be said."""
REQUEST_HEADER, REPLY_HEADER = struct.Struct(">Q?"), struct.Struct(">I")
_MAX_OPEN_FILES = 16
_ALARM_MARGIN_S = 1.0
"""The sandbox kills first; where it has been killed itself, the alarm ends what hangs."""


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """What one child decodes, and within which limits."""

    candidate_resolutions: tuple[Resolution, ...]
    max_pixels: int
    min_decoded_fraction: float
    timeout_s: float
    memory_mb: int
    """MiB of address space, of which Python, numpy and the decoders' libraries take 150."""


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """`tiles` uint8 [1 + tiles_wide * tiles_high, S, S, 3], S being the width of the first candidate resolution."""

    size: tuple[int, int]
    """(width, height) in pixels"""
    grid: tuple[int, int]
    """(tiles_wide, tiles_high)"""
    flags: tuple[str, ...]
    tiles: np.ndarray


Prepare = Callable[[bytes, DecodeSettings, bool], PreparedImage]


def prepare_image(encoded: bytes, settings: DecodeSettings, dynamic: bool = True) -> PreparedImage:
    """`dynamic` as for `tile_image`. Raises RowFailure: what `decode_image` raises, or TILING_FAILED."""
    decoded = decode_image(encoded, max_pixels=settings.max_pixels, min_decoded_fraction=settings.min_decoded_fraction)
    image = decoded.image
    try:
        tiled = tile_image(image, settings.candidate_resolutions, dynamic=dynamic)
    except MemoryError:
        raise RowFailure(ErrorKind.DECODER_OUT_OF_MEMORY, f"tiling {image.width}x{image.height} pixels") from None
    except Exception as error:
        message = f"{image.width}x{image.height} pixels: {type(error).__name__}: {error}"
        raise RowFailure(ErrorKind.TILING_FAILED, message) from error
    return PreparedImage(size=image.size, grid=tiled.grid, flags=decoded.flags, tiles=tiled.tiles)


def run(prepare: Prepare = prepare_image) -> None:
    """Answers requests until the sandbox closes its end. The settings are the program's one argument, as JSON."""
    fields = json.loads(sys.argv[1])
    resolutions = tuple((width, height) for width, height in fields.pop("candidate_resolutions"))
    settings = DecodeSettings(candidate_resolutions=resolutions, **fields)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of a terminal: the sandbox decides
    Image.init()  # loads the decoders' libraries, while files can be opened
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # else one for each core, each with its own stack and arena
    _limit_resources(settings.memory_mb)
    channel = _take_standard_streams()
    try:
        channel.sendall(READY)
        while (request := _receive(channel)) is not None:
            signal.setitimer(signal.ITIMER_REAL, settings.timeout_s + _ALARM_MARGIN_S)
            _reply(channel, request, settings, prepare)
            signal.setitimer(signal.ITIMER_REAL, 0)
    except MemoryError:
        os._exit(OUT_OF_MEMORY_STATUS)
    except ConnectionError:
        os._exit(0)  # the sandbox is gone


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


def _receive(channel: socket.socket) -> tuple[bytes, bool] | None:
    """The next file and whether to tile it; None at the end of the stream."""
    header = channel.recv(REQUEST_HEADER.size, socket.MSG_WAITALL)
    if len(header) < REQUEST_HEADER.size:
        return None
    num_bytes, dynamic = REQUEST_HEADER.unpack(header)
    encoded = channel.recv(num_bytes, socket.MSG_WAITALL)
    return (encoded, dynamic) if len(encoded) == num_bytes else None


def _reply(channel: socket.socket, request: tuple[bytes, bool], settings: DecodeSettings, prepare: Prepare) -> None:
    encoded, dynamic = request
    try:
        prepared = prepare(encoded, settings, dynamic)
    except RowFailure as failure:
        _send(channel, {"kind": failure.error.kind, "message": failure.error.message})
    else:
        _send(channel, {"size": prepared.size, "grid": prepared.grid, "flags": prepared.flags})
        channel.sendall(np.ascontiguousarray(prepared.tiles).data.cast("B"))


def _send(channel: socket.socket, fields: dict[str, object]) -> None:
    data = json.dumps(fields).encode()
    channel.sendall(REPLY_HEADER.pack(len(data)) + data)


if __name__ == "__main__":
    run()
