"""Image files that are nearly right: metadata, directories, sides, frames, modes and palettes that few people write."""

import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image

from pipeline.decode import ANIMATED, MULTI_PAGE
from schemas.errors import ErrorKind
from tests.hostile.hostile_file import REFUSED, TILES, HostileFile
from tests.pipeline.pictures import encode, four_corners, png, png_chunk, png_rows, tiff


def absurd_exif(generator: np.random.Generator, num_variants: int) -> Iterator[HostileFile]:
    """Metadata are nobody's pixels: whatever is in them, the picture is good."""
    for variant in range(num_variants):
        entries = [
            struct.pack(
                "<HHII",
                generator.choice([0x0112, 0x8769, 0x8825, 0xA005, 0x014A, 0x010F, generator.integers(65_536)]),
                generator.integers(0, 14),
                generator.choice([0, 1, 2, 65_535, 2**31, 2**32 - 1]),
                generator.choice([0, 8, 10, 26, 60, 2**31, 2**32 - 1]),
            )
            for _ in range(1 + variant)
        ]
        directory = struct.pack("<H", len(entries)) + b"".join(entries) + struct.pack("<I", 8 * (variant % 2))
        exif = b"Exif\0\0II*\0\x08\0\0\0" + directory
        for kind in ("JPEG", "PNG", "WEBP"):
            encoded = encode(four_corners(), kind, exif=exif)
            yield HostileFile(group="exif", name=f"{kind} {variant}", encoded=encoded, allowed=frozenset({TILES}))


def absurd_tiff_directories() -> Iterator[HostileFile]:
    picture = four_corners()
    loop = tiff(picture, rows_per_strip=32, next_directory=8)
    yield HostileFile(group="tiff loops", name="one directory", encoded=loop, allowed=frozenset({TILES}))
    plain = bytearray(tiff(picture, rows_per_strip=32))
    second_at, third_at = len(plain), len(plain) + 6
    struct.pack_into("<I", plain, 8 + 2 + 12 * 10, second_at)
    two = plain + struct.pack("<HI", 0, third_at) + struct.pack("<HI", 0, second_at)
    yield HostileFile(
        group="tiff loops", name="two directories", encoded=bytes(two), allowed=frozenset({TILES}), flag=MULTI_PAGE
    )
    chain = plain + b"".join(struct.pack("<HI", 0, len(plain) + 6 * (n + 1)) for n in range(50_000))
    yield HostileFile(
        group="tiff loops", name="50,000 directories", encoded=bytes(chain), allowed=frozenset({TILES}), flag=MULTI_PAGE
    )
    for tag, place in (("bits", 2), ("compression", 3), ("strip offsets", 5), ("samples", 6), ("strip sizes", 8)):
        for what, offset in (("count", 4), ("value", 8)):
            # Libtiff does without sizes of strips where they cannot be.
            may_do_without = {TILES} if (tag, what) == ("strip sizes", "count") else set()
            damaged = bytearray(tiff(picture, rows_per_strip=4, compression="deflate"))
            struct.pack_into("<I", damaged, 8 + 2 + 12 * place + offset, 2**32 - 1)
            yield HostileFile(
                group="tiff directories",
                name=f"{what} of {tag}",
                encoded=bytes(damaged),
                allowed=REFUSED | may_do_without,
            )


def extreme_sides() -> Iterator[HostileFile]:
    sides = {"PNG": 60_000, "JPEG": 60_000, "BMP": 60_000, "TIFF": 60_000, "GIF": 60_000, "PPM": 60_000, "WEBP": 16_383}
    for kind, side in sides.items():
        for width, height in ((1, 1), (1, side), (side, 1), (2, side)):
            encoded = encode(Image.new("RGB", (width, height), (9, 99, 200)), kind)
            yield HostileFile(
                group="extreme sides", name=f"{kind} {width}x{height}", encoded=encoded, allowed=frozenset({TILES})
            )
    for width, height in ((0, 9), (9, 0)):
        yield HostileFile(
            group="no sides",
            name=f"PNG {width}x{height}",
            encoded=png(width, height, depth=8, colour_type=0, pixels=png_rows()),
            allowed=frozenset({ErrorKind.UNREADABLE, ErrorKind.DECODER_FAILED}),
        )


def several_frames() -> Iterator[HostileFile]:
    frames = [Image.new("RGB", (48, 32), (9 * n % 256, 5 * n % 256, 90)) for n in range(1, 200)]
    for kind in ("GIF", "WEBP", "PNG"):
        encoded = encode(four_corners(), kind, save_all=True, append_images=frames, duration=20)
        yield HostileFile(group="frames", name=kind, encoded=encoded, allowed=frozenset({TILES}), flag=ANIMATED)
    encoded = encode(four_corners(), "AVIF", save_all=True, append_images=frames[:3], duration=20)
    yield HostileFile(group="frames", name="AVIF", encoded=encoded, allowed=frozenset({TILES}), flag=ANIMATED)
    encoded = encode(four_corners(), "TIFF", save_all=True, append_images=frames)
    yield HostileFile(group="frames", name="TIFF", encoded=encoded, allowed=frozenset({TILES}), flag=MULTI_PAGE)


def odd_modes() -> Iterator[HostileFile]:
    picture, grey = four_corners(), np.linspace(0, 1, 48 * 32).reshape(32, 48)
    images = {mode: picture.convert(mode) for mode in ("1", "L", "LA", "P", "CMYK", "YCbCr", "RGBA", "I", "F")}
    images["I;16"] = Image.fromarray((grey * 65535).astype(np.uint16))
    images["F with nan"] = Image.fromarray(np.where(grey < 0.1, np.nan, grey * 1e30).astype(np.float32))
    images["F of nan"] = Image.fromarray(np.full((4, 4), np.nan, dtype=np.float32))
    # Without compression, Pillow reads four bytes for each pixel of a YCbCr TIFF and writes three.
    kinds = {
        "TIFF": images.keys() - {"YCbCr"},
        "PNG": ("1", "L", "LA", "P", "RGBA", "I", "I;16"),
        "JPEG": ("1", "L", "CMYK", "YCbCr"),
    }
    for kind, modes in kinds.items():
        for mode, image in images.items():
            if mode in modes:
                yield HostileFile(
                    group="modes", name=f"{kind} {mode}", encoded=encode(image, kind), allowed=frozenset({TILES})
                )


def odd_palettes() -> Iterator[HostileFile]:
    rows = png_rows(*[bytes(range(8))] * 8)
    palettes = {
        "no palette": b"",
        "one colour": png_chunk(b"PLTE", b"\xff\0\0"),
        "half a colour": png_chunk(b"PLTE", b"\xff\0\0\xff"),
        "257 colours": png_chunk(b"PLTE", bytes(257 * 3)),
        "two palettes": png_chunk(b"PLTE", bytes(24)) * 2,
    }
    for name, chunk in palettes.items():
        for transparent in (b"", b"\0", b"\x80" * 8, b"\x80" * 300):
            yield HostileFile(
                group="palettes",
                name=f"{name}, {len(transparent)} levels of alpha",
                encoded=png(8, 8, depth=8, colour_type=3, pixels=rows, before_pixels=chunk, transparent=transparent),
                allowed=frozenset({TILES, ErrorKind.DECODER_FAILED}),
            )
    for colour_type, row in ((0, bytes(8)), (2, bytes(24)), (4, bytes(16)), (6, bytes(32))):
        for transparent in (b"\0", b"\0" * 6, b"\xff" * 7):
            yield HostileFile(
                group="palettes",
                name=f"colour type {colour_type}, {len(transparent)} bytes of transparency",
                encoded=png(
                    8, 8, depth=8, colour_type=colour_type, pixels=png_rows(*[row] * 8), transparent=transparent
                ),
                allowed=frozenset({TILES, ErrorKind.UNREADABLE}),
            )
    gif = bytearray(encode(Image.new("P", (9, 9)), "GIF", transparency=0))
    gif[gif.index(b"\x21\xf9\x04") + 6] = 255
    yield HostileFile(group="palettes", name="GIF, transparent 255", encoded=bytes(gif), allowed=frozenset({TILES}))
