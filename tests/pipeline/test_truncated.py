import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from model.tiling import PAD_LEVEL
from pipeline.decode import EXIF_ROTATED, FORMATS, TRUNCATED, decode_image
from pipeline.to_rgb import ALPHA_COMPOSITED, RANGE_STRETCHED
from pipeline.truncated import decode_partly
from schemas.errors import ErrorKind, RowFailure
from tests.benchmarks.photographs import photograph
from tests.pipeline.pictures import encode, interlaced_png, png, png_rows, tiff

GREY = [PAD_LEVEL] * 3
PICTURE = Image.open(io.BytesIO(photograph(96, 160, generator=np.random.default_rng(0)))).convert("RGB")
DEEP = Image.fromarray(np.asarray(PICTURE.convert("L")).astype(np.uint16) * 257)

ROW_BY_ROW = {
    "JPEG": encode(PICTURE, "JPEG", subsampling=0),
    "JPEG with coarse colours": encode(PICTURE, "JPEG", subsampling=2),
    "CMYK JPEG": encode(PICTURE.convert("CMYK"), "JPEG"),
    "PNG": encode(PICTURE, "PNG"),
    "palette PNG": encode(PICTURE.convert("P"), "PNG"),
    "1-bit PNG": encode(PICTURE.convert("1"), "PNG"),
    "16-bit PNG": encode(DEEP, "PNG"),
    "interlaced PNG": interlaced_png(PICTURE),
    "GIF": encode(PICTURE, "GIF", interlace=0),
    "interlaced GIF": encode(PICTURE, "GIF", interlace=1),
    "BMP": encode(PICTURE, "BMP"),
    "DIB": encode(PICTURE, "DIB"),
    "PPM": encode(PICTURE, "PPM"),
    "plain PPM": b"P3 96 160 255\n" + " ".join(map(str, np.asarray(PICTURE).ravel())).encode() + b"\n",
    "TIFF": encode(PICTURE, "TIFF"),
    "TIFF of strips": tiff(PICTURE, rows_per_strip=4),
    "deflated TIFF of strips": tiff(PICTURE, rows_per_strip=4, compression="deflate"),
    "JPEG TIFF of strips": tiff(PICTURE, rows_per_strip=8, compression="jpeg"),
    "float TIFF": encode(PICTURE.convert("F"), "TIFF"),
}
"""Files whose beginning is decoded without their end."""
ALL_OR_NOTHING = {
    "progressive JPEG": encode(PICTURE, "JPEG", progressive=True),
    "WebP": encode(PICTURE, "WEBP"),
    "lossless WebP": encode(PICTURE, "WEBP", lossless=True),
    "AVIF": encode(PICTURE, "AVIF"),
    "JPEG 2000": encode(PICTURE, "JPEG2000"),
    "TIFF with its directory last": encode(PICTURE, "TIFF", compression="tiff_lzw"),
}
TILED = {"tiled JPEG 2000": encode(PICTURE, "JPEG2000", tile_size=(32, 32))}


def opened(encoded: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(encoded), formats=FORMATS)


def rows_of(image: Image.Image) -> np.ndarray:
    return np.frombuffer(image.tobytes(), dtype=np.uint8).reshape(image.height, -1)


def cut(encoded: bytes, kept: float) -> bytes:
    return encoded[: int(kept * len(encoded))]


def decode(encoded: bytes, min_decoded_fraction: float = 0.5):
    return decode_image(encoded, max_pixels=10**6, min_decoded_fraction=min_decoded_fraction)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", [*ROW_BY_ROW, *ALL_OR_NOTHING, *TILED])
def test_no_row_is_claimed_that_differs_from_the_whole_picture(name: str):
    encoded = (ROW_BY_ROW | ALL_OR_NOTHING | TILED)[name]
    whole = rows_of(opened(encoded).copy())
    for length in {*range(100, len(encoded), max(1, len(encoded) // 40)), *range(len(encoded) - 9, len(encoded))}:
        if name == "plain PPM":
            length = encoded.rfind(b" ", 0, length)  # half a number is a number too: no decoder could tell
        try:
            partial = decode_partly(lambda length=length: opened(encoded[:length]))
        except OSError:  # its header is cut off
            continue
        if partial is not None:
            rows = rows_of(partial.image)
            assert (rows[partial.is_decoded] == whole[partial.is_decoded]).all(), length


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ROW_BY_ROW)
def test_most_of_a_file_gives_most_of_its_rows(name: str):
    partial = decode_partly(lambda: opened(cut(ROW_BY_ROW[name], 0.85)))

    assert partial is not None
    assert 0.6 < partial.is_decoded.mean() < 0.95


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ALL_OR_NOTHING)
def test_file_that_needs_its_end_is_truncated_without_it(name: str):
    with pytest.raises(RowFailure) as caught:
        decode(ALL_OR_NOTHING[name][:-8], min_decoded_fraction=0.01)

    assert caught.value.error.kind is ErrorKind.TRUNCATED


def test_used_picture_has_its_whole_size_its_rows_and_grey_below():
    decoded = decode(cut(ROW_BY_ROW["PNG"], 0.8))

    shown, whole = np.asarray(decoded.image), np.asarray(PICTURE)
    assert (decoded.flags, shown.shape) == ((TRUNCATED,), whole.shape)
    missing = (shown == GREY).all(axis=(1, 2))
    num_decoded = int(np.argmax(missing))
    assert 0.7 * len(whole) < num_decoded < 0.9 * len(whole)
    assert missing[num_decoded:].all()
    assert (shown[:num_decoded] == whole[:num_decoded]).all()


def test_rows_that_interlacing_left_out_repeat_their_neighbours():
    decoded = decode(cut(ROW_BY_ROW["interlaced PNG"], 0.85))

    shown, whole = np.asarray(decoded.image), np.asarray(PICTURE)
    assert (shown[::2] == whole[::2]).all()
    assert (shown[-3] == whole[-4]).all()


def test_message_tells_how_much_there_is_and_how_much_is_wanted():
    with pytest.raises(RowFailure) as caught:
        decode(ROW_BY_ROW["BMP"][: -96 * 3 * 40 - 1], min_decoded_fraction=0.9)

    assert "119 of its 160 rows (74.4%) can be decoded, less than min_decoded_fraction = 0.9" in str(caught.value)


def test_exactly_the_wanted_share_is_enough():
    encoded = ROW_BY_ROW["BMP"][: -96 * 3 * 16]

    assert decode(encoded, min_decoded_fraction=0.9).flags == (TRUNCATED,)
    with pytest.raises(RowFailure):
        decode(encoded[:-1], min_decoded_fraction=0.9)


def test_file_that_lacks_only_its_end_marker_is_whole():
    decoded = decode(ROW_BY_ROW["PNG"][:-12], min_decoded_fraction=1.0)

    assert decoded.flags == ()
    assert (np.asarray(decoded.image) == np.asarray(PICTURE)).all()


@pytest.mark.parametrize("file_format", ["JPEG", "TIFF", "PNG"])
def test_turned_picture_is_turned_with_its_missing_rows(file_format: str):
    exif = Image.Exif()
    exif[0x0112] = 6
    decoded = decode(cut(encode(PICTURE, file_format, exif=exif), 0.8))

    assert decoded.image.size == (PICTURE.height, PICTURE.width)
    assert set(decoded.flags) == {TRUNCATED, EXIF_ROTATED}
    assert (np.asarray(decoded.image)[:, 0] == GREY).all()
    assert (np.asarray(decoded.image)[:, -1] != GREY).any()


def test_compressed_tiff_that_ends_early_is_turned_once():
    encoded = bytearray(tiff(PICTURE, rows_per_strip=4, compression="deflate"))
    encoded[8 + 2 + 12 * 9 : 8 + 2 + 12 * 10] = b"\x12\x01\x03\0\x01\0\0\0\x06\0\0\0"  # orientation 6, for tag 284
    assert opened(bytes(encoded)).getexif()[0x0112] == 6

    decoded = decode(cut(bytes(encoded), 0.8))

    assert decoded.image.size == (PICTURE.height, PICTURE.width)
    assert (np.asarray(decoded.image)[:, 0] == GREY).all()
    assert (np.asarray(decoded.image)[:, -1] == np.asarray(PICTURE)[0]).all()


def test_missing_pixels_count_neither_as_transparent_nor_as_a_level():
    opaque = PICTURE.convert("RGBA")
    assert decode(cut(encode(opaque, "PNG"), 0.8)).flags == (TRUNCATED,)

    unit = Image.fromarray(np.asarray(PICTURE.convert("L")).astype(np.float32) / 255)
    flags = decode(cut(encode(unit, "TIFF"), 0.8)).flags
    assert RANGE_STRETCHED not in flags
    assert ALPHA_COMPOSITED not in flags


def test_broken_pixels_in_a_file_with_an_end_are_no_truncation():
    stream = png_rows(*(np.asarray(PICTURE)[y].tobytes() for y in range(160)))
    encoded = png(96, 160, depth=8, colour_type=2, pixels=stream[:20_000] + bytes(2000) + stream[22_000:])

    with pytest.raises(RowFailure) as caught:
        decode(encoded, min_decoded_fraction=0.01)
    assert caught.value.error.kind is ErrorKind.DECODER_FAILED
