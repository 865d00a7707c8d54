"""Small image files that become large: in declared sizes, pixels, texts, profiles or scans."""

import struct
import zlib
from collections.abc import Iterator

from PIL import Image

from schemas.errors import ErrorKind
from tests.hostile.hostile_file import TILES, HostileFile
from tests.pipeline.pictures import encode, four_corners, png, png_chunk, png_rows, tiff


def declared_bombs() -> Iterator[HostileFile]:
    """Sizes that only the header knows; the files are small."""
    picture = four_corners()
    bmp, jpeg, gif = (bytearray(encode(picture, kind)) for kind in ("BMP", "JPEG", "GIF"))
    jp2, webp = bytearray(encode(picture, "JPEG2000")), bytearray(encode(picture, "WEBP", lossless=True))
    struct.pack_into("<ii", bmp, 18, 60_000, 60_000)
    struct.pack_into(">HH", jpeg, jpeg.index(b"\xff\xc0") + 5, 65_500, 65_500)
    struct.pack_into("<HH", gif, 6, 65_535, 65_535)
    struct.pack_into(">II", jp2, jp2.index(b"ihdr") + 4, 2**31 - 1, 2**31 - 1)
    sides = webp.index(b"VP8L") + 9  # 14 bits each, less one
    struct.pack_into("<I", webp, sides, struct.unpack_from("<I", webp, sides)[0] & 0xF000_0000 | 0x0FFF_FFFE)
    big = bytearray(tiff(picture, rows_per_strip=32))
    struct.pack_into("<I", big, 8 + 2 + 8, 60_000)
    struct.pack_into("<I", big, 8 + 2 + 12 + 8, 60_000)
    files = {
        "png": png(2**31 - 1, 2**31 - 1, depth=8, colour_type=2, pixels=b""),
        "png 1-bit": png(60_000, 60_000, depth=1, colour_type=0, pixels=_compressed_zeros(1_000_000)),
        "bmp": bmp,
        "jpeg": jpeg,
        "gif": gif,
        "tiff": big,
        "webp": webp,
        "jpeg 2000": jp2,
        "ppm": b"P6\n60000 60000 255\n" + bytes(100),
    }
    for name, encoded in files.items():
        yield HostileFile(
            group="declared bombs",
            name=name,
            encoded=bytes(encoded),
            allowed=frozenset({ErrorKind.TOO_MANY_PIXELS}),
        )


def compressed_bombs() -> Iterator[HostileFile]:
    """Within max_pixels, and a thousand times the file."""
    blank = Image.new("L", (2000, 2000))
    files = {
        "png": encode(blank, "PNG"),
        "gif": encode(blank, "GIF"),
        "tiff": encode(blank, "TIFF", compression="tiff_adobe_deflate"),
        "webp": encode(blank.convert("RGB"), "WEBP", lossless=True),
        "jpeg 2000": encode(blank, "JPEG2000"),
        "more pixels than declared": png(8, 8, depth=8, colour_type=0, pixels=_compressed_zeros(50_000_000)),
    }
    for name, encoded in files.items():
        assert len(encoded) < 60_000, name
        yield HostileFile(group="compressed bombs", name=name, encoded=encoded, allowed=frozenset({TILES}))


def metadata_bombs() -> Iterator[HostileFile]:
    bomb = _compressed_zeros(50_000_000)
    small = _compressed_zeros(1_000_000)
    text = png_chunk(b"zTXt", b"Comment\0\0" + small)
    chunks = {
        "zTXt": png_chunk(b"zTXt", b"Comment\0\0" + bomb),
        "iTXt": png_chunk(b"iTXt", b"Comment\0\1\0\0\0" + bomb),
        "iCCP": png_chunk(b"iCCP", b"profile\0\0" + bomb),
        "a hundred zTXt": text * 100,
    }
    for name, chunk in chunks.items():
        encoded = png(8, 8, depth=8, colour_type=0, pixels=png_rows(*[bytes(8)] * 8), before_pixels=chunk)
        yield HostileFile(
            group="metadata bombs", name=name, encoded=encoded, allowed=frozenset({TILES, ErrorKind.DECODER_FAILED})
        )
    jpeg = encode(four_corners(), "JPEG")
    segments = {
        "profile of 255 parts, one there": b"\xff\xe2\0\x20ICC_PROFILE\0\1\xff" + bytes(16),
        "profile part 9 of 1": b"\xff\xe2\0\x20ICC_PROFILE\0\x09\1" + bytes(16),
        "comments of 6 MB": (b"\xff\xfe\xff\xff" + bytes(65_533)) * 100,
        "picture index of an MPO, cut off": b"\xff\xe2\0\x10MPF\0II*\0\xff\xff\xff\x7f" + bytes(2),
        "Photoshop block, cut off": b"\xff\xed\0\x20Photoshop 3.0\x008BIM\x03\xed\0\0\x7f\xff\xff\xff" + bytes(4),
    }
    for name, segment in segments.items():
        yield HostileFile(
            group="segments", name=name, encoded=jpeg[:2] + segment + jpeg[2:], allowed=frozenset({TILES})
        )


def scan_bomb(num_scans: int) -> bytes:
    """A blank progressive JPEG of four megapixels with its last scan again and again: 14 bytes, 3 ms each."""
    encoded = encode(Image.new("L", (2000, 2000)), "JPEG", progressive=True)
    last_scan = encoded[encoded.rindex(b"\xff\xda") : -2]
    return encoded[:-2] + last_scan * num_scans + encoded[-2:]


def _compressed_zeros(num_bytes: int) -> bytes:
    compressor, chunk = zlib.compressobj(9), bytes(1_000_000)
    parts = [compressor.compress(chunk) for _ in range(num_bytes // len(chunk))]
    return b"".join([*parts, compressor.flush()])
