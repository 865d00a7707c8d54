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


def png(
    width: int,
    height: int,
    *,
    depth: int,
    colour_type: int,
    pixels: bytes,
    transparent: bytes = b"",
    before_pixels: bytes = b"",
    interlaced: bool = False,
) -> bytes:
    """A PNG of kinds that Pillow cannot write. `pixels` is the compressed stream, see `png_rows`."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour_type, 0, 0, interlaced)
    chunks = [png_chunk(b"IHDR", header), before_pixels]
    if transparent:
        chunks.append(png_chunk(b"tRNS", transparent))
    return b"".join((b"\x89PNG\r\n\x1a\n", *chunks, png_chunk(b"IDAT", pixels), png_chunk(b"IEND", b"")))


def png_rows(*rows: bytes) -> bytes:
    return zlib.compress(b"".join(b"\0" + row for row in rows))


ADAM7 = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
"""(left, top, step to the right, step down) of the seven passes of an interlaced PNG."""


def interlaced_png(image: Image.Image) -> bytes:
    pixels = np.asarray(image.convert("RGB"))
    rows = [row.tobytes() for left, top, right, down in ADAM7 for row in pixels[top::down, left::right]]
    return png(*image.size, depth=8, colour_type=2, pixels=png_rows(*rows), interlaced=True)


def tiff(image: Image.Image, *, rows_per_strip: int, compression: str = "none", next_directory: int = 0) -> bytes:
    """An RGB TIFF with its directory first, as scanners write it; Pillow writes that of a compressed one last.

    `compression` is "none", "deflate" or "jpeg"; `next_directory` an offset.
    """
    tops = range(0, image.height, rows_per_strip)
    bands = [image.crop((0, top, image.width, min(top + rows_per_strip, image.height))) for top in tops]
    compress, number, photometric = {
        "none": (Image.Image.tobytes, 1, 2),
        "deflate": (lambda band: zlib.compress(band.tobytes()), 8, 2),
        "jpeg": (lambda band: encode(band, "JPEG", quality=90, subsampling=0), 7, 6),
    }[compression]
    strips = [compress(band) for band in bands]
    num_tags, num_strips = 10, len(strips)
    bits_at = 8 + 2 + 12 * num_tags + 4
    offsets_at = bits_at + 6
    counts_at = offsets_at + 4 * num_strips
    starts = np.cumsum([counts_at + 4 * num_strips, *map(len, strips)]).tolist()
    long, short = 4, 3
    tags = [
        (256, long, 1, image.width),
        (257, long, 1, image.height),
        (258, short, 3, bits_at),
        (259, short, 1, number),
        (262, short, 1, photometric),
        (273, long, num_strips, offsets_at if num_strips > 1 else starts[0]),
        (277, short, 1, 3),
        (278, long, 1, rows_per_strip),
        (279, long, num_strips, counts_at if num_strips > 1 else len(strips[0])),
        (284, short, 1, 1),
    ]
    return b"".join(
        (
            struct.pack("<2sHIH", b"II", 42, 8, num_tags),
            *(struct.pack("<HHII", *tag) for tag in tags),
            struct.pack("<I3H", next_directory, 8, 8, 8),
            struct.pack(f"<{num_strips}I", *starts[:-1]),
            struct.pack(f"<{num_strips}I", *map(len, strips)),
            *strips,
        )
    )
