"""Small pictures with known colours, and the files they are stored in."""

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

RED, GREEN, BLUE, YELLOW = (220, 30, 40), (20, 200, 60), (30, 60, 210), (230, 220, 20)
CORNERS = (RED, GREEN, BLUE, YELLOW)


def four_corners(width: int = 48, height: int = 32) -> Image.Image:
    """Red and green above, blue and yellow below; wider than high, so that a wrong turn shows."""
    top = np.array([[RED, GREEN], [BLUE, YELLOW]], dtype=np.uint8)
    return Image.fromarray(top.repeat(height // 2, axis=0).repeat(width // 2, axis=1))


def corners_of(image: Image.Image) -> list[tuple[int, ...]]:
    """The colours in the middle of the quarters: top left, top right, bottom left, bottom right."""
    width, height = image.size
    return [
        image.getpixel((x, y))  # type: ignore[misc]
        for y in (height // 4, 3 * height // 4)
        for x in (width // 4, 3 * width // 4)
    ]


def encode(image: Image.Image, file_format: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, file_format, **options)
    return file.getvalue()


def png_chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def png(width: int, height: int, *, depth: int, colour_type: int, pixels: bytes, transparent: bytes = b"") -> bytes:
    """A PNG of kinds that Pillow cannot write. `pixels` is the compressed stream, see `png_rows`."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, 0)
    chunks = [png_chunk(b"IHDR", header)]
    if transparent:
        chunks.append(png_chunk(b"tRNS", transparent))
    return b"".join((b"\x89PNG\r\n\x1a\n", *chunks, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")))


def png_rows(*rows: bytes) -> bytes:
    return zlib.compress(b"".join(b"\0" + row for row in rows))
