"""The program of one decoding process: encoded images in at its standard input, their tiles out of it again.

Started by `pipeline.sandbox`, which holds the other end of the socket. It limits itself before it looks at any image,
and imports nothing but what decoding needs (`pipeline.child_program` has what is not about images).

A request is 8 bytes of the file's length, one that says whether to tile, 4 of the
length of the marks, these as JSON, and the file. A reply is 4 bytes of length, that much JSON ({"size", "grid",
"flags", "metadata", "marked_grids"}, or {"kind", "message"} of a failure), and the bytes of the tiles, whose number the
grids tell: those of the image, and then of its copies with one mark each.
"""

import json
import socket
import struct
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from PIL import AvifImagePlugin, Image

from model import resample
from model.tiling import Resolution, TiledImage, select_resolution, tile_image
from pipeline.child_program import receive_exactly, send_fields, serve
from pipeline.decode import decode_image, upright_size
from pipeline.marks import draw_mark
from schemas.errors import ErrorKind, RowFailure
from schemas.rows import Mark, mark_of

REQUEST_HEADER = struct.Struct(">Q?I")


@dataclass(frozen=True, kw_only=True)
class DecodeSettings:
    """What one child decodes, and within which limits."""

    candidate_resolutions: tuple[Resolution, ...]
    max_pixels: int
    min_decoded_fraction: float
    timeout_s: float
    memory_mb: int
    """MiB of address space, of which Python, numpy and the decoders' libraries take 150."""
    headers_only: bool = False
    """Sizes and grids are told from the header; no pixel is decoded, and there are no tiles."""


@dataclass(frozen=True, kw_only=True)
class PreparedImage:
    """`tiles` uint8 [N, S, S, 3], S being the width of the first candidate resolution: 1 + tiles_wide * tiles_high
    of the image, and as many of each marked picture, by its own grid."""

    size: tuple[int, int]
    """(width, height) in pixels"""
    grid: tuple[int, int]
    """(tiles_wide, tiles_high)"""
    flags: tuple[str, ...]
    metadata: tuple[tuple[str, str], ...] = ()
    """See `pipeline.metadata`."""
    marked_grids: tuple[tuple[int, int], ...] = ()
    """Of the pictures with one mark each."""
    tiles: np.ndarray


Prepare = Callable[[bytes, DecodeSettings, bool, Sequence[Mark]], PreparedImage]


def prepare_image(
    encoded: bytes, settings: DecodeSettings, dynamic: bool = True, marks: Sequence[Mark] = ()
) -> PreparedImage:
    """Decodes and tiles one image file.

    Args:
        dynamic: as for `tile_image`; a marked picture, which is looked at alone, is always tiled.
        marks: each is drawn into a copy of its own.

    Raises:
        RowFailure: what `decode_image` (`upright_size`, of headers) and `draw_mark` raise, or TILING_FAILED.
    """
    if settings.headers_only:
        return _prepare_header(encoded, settings, dynamic, len(marks))
    decoded = decode_image(encoded, max_pixels=settings.max_pixels, min_decoded_fraction=settings.min_decoded_fraction)
    image = decoded.image
    try:
        tiled = tile_image(image, settings.candidate_resolutions, dynamic=dynamic)
        marked = [tile_image(draw_mark(image, mark), settings.candidate_resolutions) for mark in marks]
    except RowFailure:
        raise
    except MemoryError:
        raise RowFailure(ErrorKind.DECODER_OUT_OF_MEMORY, f"tiling {image.width}x{image.height} pixels") from None
    except Exception as error:
        message = f"{image.width}x{image.height} pixels: {type(error).__name__}: {error}"
        raise RowFailure(ErrorKind.TILING_FAILED, message) from error
    return PreparedImage(
        size=image.size,
        grid=tiled.grid,
        flags=decoded.flags,
        metadata=decoded.metadata,
        marked_grids=tuple(one.grid for one in marked),
        tiles=_joined([tiled, *marked]),
    )


def _prepare_header(encoded: bytes, settings: DecodeSettings, dynamic: bool, num_marks: int) -> PreparedImage:
    width_px, height_px = upright_size(encoded, max_pixels=settings.max_pixels)
    side = settings.candidate_resolutions[0][0]
    width, height = select_resolution(width_px, height_px, settings.candidate_resolutions)
    tiled_grid = width // side, height // side
    return PreparedImage(
        size=(width_px, height_px),
        grid=tiled_grid if dynamic else (1, 1),
        flags=(),
        marked_grids=(tiled_grid,) * num_marks,
        tiles=np.empty((0, side, side, 3), dtype=np.uint8),
    )


def _joined(pictures: Sequence[TiledImage]) -> np.ndarray:
    return pictures[0].tiles if len(pictures) == 1 else np.concatenate([one.tiles for one in pictures])


def run(prepare: Prepare = prepare_image) -> None:
    """Answers requests until the sandbox closes its end. The settings are the program's one argument, as JSON."""
    fields = json.loads(sys.argv[1])
    resolutions = tuple((width, height) for width, height in fields.pop("candidate_resolutions"))
    settings = DecodeSettings(candidate_resolutions=resolutions, **fields)
    Image.init()  # loads the decoders' libraries, while files can be opened; and the one that scales
    resample.native()
    AvifImagePlugin.DEFAULT_MAX_THREADS = 1  # else one for each core, each with its own stack and arena

    def reply(channel: socket.socket, request: _Request) -> None:
        _reply(channel, request, settings, prepare)

    serve(_receive, reply, timeout_s=settings.timeout_s, memory_mb=settings.memory_mb)


_Request = tuple[bytes, bool, tuple[Mark, ...]]


def _receive(channel: socket.socket) -> _Request | None:
    """The next file, whether to tile it, and its marks; None at the end of the stream."""
    header = receive_exactly(channel, REQUEST_HEADER.size)
    if header is None:
        return None
    num_bytes, dynamic, num_bytes_of_marks = REQUEST_HEADER.unpack(header)
    marks, encoded = receive_exactly(channel, num_bytes_of_marks), receive_exactly(channel, num_bytes)
    if marks is None or encoded is None:
        return None
    return encoded, dynamic, tuple(mark_of(mark) for mark in json.loads(marks or b"[]"))


def _reply(channel: socket.socket, request: _Request, settings: DecodeSettings, prepare: Prepare) -> None:
    encoded, dynamic, marks = request
    try:
        prepared = prepare(encoded, settings, dynamic, marks)
    except RowFailure as failure:
        send_fields(channel, {"kind": failure.error.kind, "message": failure.error.message})
    else:
        told = ("size", "grid", "flags", "metadata", "marked_grids")
        send_fields(channel, {name: getattr(prepared, name) for name in told})
        channel.sendall(np.ascontiguousarray(prepared.tiles).reshape(-1).data)


if __name__ == "__main__":
    run()
