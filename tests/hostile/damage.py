"""Image files that are cut off, damaged, made up from their first bytes on, or no images at all."""

from collections.abc import Iterator

import numpy as np
from PIL import Image

from schemas.errors import ErrorKind
from tests.hostile.hostile_file import REFUSED, TILES, HostileFile
from tests.pipeline.pictures import encode, four_corners, interlaced_png, tiff

_NEED_THEIR_END = ("jpeg progressive", "webp", "webp lossless", "tiff lzw", "avif", "jpeg 2000")
_SMALLEST_SIGNED = {"dib": 40}
"""Bytes below which nothing tells that a file is an image; 16 for the others."""


def _whole_files() -> dict[str, bytes]:
    """Every format, and those of its forms that are decoded by other code."""
    picture = four_corners()
    deep = Image.fromarray(np.linspace(0, 65535, 48 * 32).reshape(32, 48).astype(np.uint16))
    return {
        "jpeg": encode(picture, "JPEG"),
        "jpeg progressive": encode(picture, "JPEG", progressive=True),
        "jpeg cmyk": encode(picture.convert("CMYK"), "JPEG"),
        "mpo": encode(picture, "MPO", save_all=True, append_images=[picture]),
        "png": encode(picture, "PNG"),
        "png interlaced": interlaced_png(picture),
        "png palette": encode(picture.convert("P"), "PNG"),
        "png 16-bit": encode(deep, "PNG"),
        "webp": encode(picture, "WEBP"),
        "webp lossless": encode(picture, "WEBP", lossless=True),
        "tiff": encode(picture, "TIFF"),
        "tiff strips": tiff(picture, rows_per_strip=4),
        "tiff deflated": tiff(picture, rows_per_strip=4, compression="deflate"),
        "tiff jpeg": tiff(picture, rows_per_strip=8, compression="jpeg"),
        "tiff lzw": encode(picture, "TIFF", compression="tiff_lzw"),
        "bmp": encode(picture, "BMP"),
        "dib": encode(picture, "DIB"),
        "gif": encode(picture, "GIF"),
        "avif": encode(picture, "AVIF"),
        "jpeg 2000": encode(picture, "JPEG2000"),
        "jpeg 2000 tiles": encode(picture, "JPEG2000", tile_size=(16, 16)),
        "ppm": encode(picture, "PPM"),
        "pgm 16-bit": encode(deep, "PPM"),
    }


def cut_off(num_variants: int) -> Iterator[HostileFile]:
    for name, encoded in _whole_files().items():
        lengths = {*range(0, 16, 3), *np.linspace(16, len(encoded) - 16, num_variants).astype(int).tolist()}
        for length in sorted(lengths):
            allowed = {ErrorKind.TRUNCATED}
            if length == 0:
                allowed = {ErrorKind.EMPTY}
            elif length < _SMALLEST_SIGNED.get(name, 16):
                allowed |= {ErrorKind.UNREADABLE}
            elif name not in _NEED_THEIR_END:
                allowed |= {TILES}
            yield HostileFile(
                group="cut off", name=f"{name} {length}", encoded=encoded[:length], allowed=frozenset(allowed)
            )


def damaged(generator: np.random.Generator, num_variants: int) -> Iterator[HostileFile]:
    for name, encoded in _whole_files().items():
        for variant in range(num_variants):
            damaged = np.frombuffer(encoded, dtype=np.uint8).copy()
            # Half of them near the beginning, where the numbers are that decoders believe.
            end = len(encoded) if variant % 2 else min(len(encoded), 128)
            places = generator.integers(2, end, 1 + variant % 5)
            damaged[places] ^= (1 << generator.integers(0, 8, len(places))).astype(np.uint8)
            yield HostileFile(
                group="damaged", name=f"{name} {variant}", encoded=damaged.tobytes(), allowed=REFUSED | {TILES}
            )


def random_with_magic(generator: np.random.Generator, num_variants: int) -> Iterator[HostileFile]:
    magics = {
        "jpeg": b"\xff\xd8\xff",
        "png": b"\x89PNG\r\n\x1a\n",
        "png header": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR",
        "gif": b"GIF89a",
        "tiff": b"II*\0\x08\0\0\0",
        "big-endian tiff": b"MM\0*\0\0\0\x08",
        "bmp": b"BM",
        "webp": b"RIFF\0\x10\0\0WEBPVP8 ",
        "webp lossless": b"RIFF\0\x10\0\0WEBPVP8L",
        "jpeg 2000": b"\0\0\0\x0cjP  \r\n\x87\n",
        "codestream": b"\xff\x4f\xff\x51",
        "avif": b"\0\0\0\x1cftypavif\0\0\0\0mif1avif",
        "ppm": b"P6\n",
    }
    for name, magic in magics.items():
        for variant in range(num_variants):
            noise = generator.integers(0, 256, 200 * 4**variant % 50_000, dtype=np.uint8).tobytes()
            yield HostileFile(group="random", name=f"{name} {variant}", encoded=magic + noise, allowed=REFUSED)


def no_images(generator: np.random.Generator) -> Iterator[HostileFile]:
    contents = {
        "page named jpg": b"<!DOCTYPE html><html><head><title>404</title></head><body>Not found</body></html>",
        "error named png": b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>',
        "json named gif": b'{"error": "quota"}',
        "drawing": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
        "pdf": b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n",
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\nsystemdict begin quit\n",
        "archive": b"PK\3\4" + bytes(100),
        "icon": b"\0\0\1\0\1\0\x10\x10\0\0\1\0 \0h\4\0\0\x16\0\0\0" + bytes(100),
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic",
        "zeros": bytes(100),
        "many zeros": bytes(100_000),
        "one byte": b"\xff",
        "noise": b"\x01" + generator.integers(0, 256, 10_000, dtype=np.uint8).tobytes(),
    }
    for name, encoded in contents.items():
        yield HostileFile(group="no images", name=name, encoded=encoded, allowed=frozenset({ErrorKind.UNREADABLE}))
    yield HostileFile(group="no images", name="nothing", encoded=b"", allowed=frozenset({ErrorKind.EMPTY}))
    for name, encoded in _whole_files().items():
        # The name of a file is never looked at, and what follows the picture neither.
        yield HostileFile(
            group="whole", name=f"{name} and more", encoded=encoded + b"<html>" * 10, allowed=frozenset({TILES})
        )
