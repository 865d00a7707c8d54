"""Encoded image bytes -> upright RGB pixels, or the reason why not.

Does not know where the bytes came from, nor what happens to the pixels.
"""

import io
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from PIL import Image, ImageFile, UnidentifiedImageError

from pipeline.metadata import metadata_of
from pipeline.signatures import is_cut_off, looks_like
from pipeline.to_rgb import to_rgb
from pipeline.truncated import decode_partly
from schemas.errors import ErrorKind, RowFailure

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "DIB", "GIF", "AVIF", "JPEG2000", "PPM")
"""What is decoded. Formats that start other programs (EPS), decode while they are opened (ICO) or have no signature
(TGA) are not."""

EXIF_ROTATED = "exif_rotated"
"""The stored pixels were turned or mirrored, as the file's orientation asks for."""
ANIMATED = "animated"
"""The file holds several frames; the first one is used."""
MULTI_PAGE = "multi_page"
"""The file holds several pages; the first one is used."""
TRUNCATED = "truncated"
"""The file ends too early. At least `min_decoded_fraction` of its rows were decoded; the others are grey."""

_ORIENTATION_TAG = 0x0112
TRANSPOSE = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_THEIR_SIDE = {5, 6, 7, 8}
_TRUNCATION_WORDS = ("truncat", "reached eof", "not enough image data", "but only got")


@dataclass(frozen=True, kw_only=True)
class DecodedImage:
    """One image as a person would see it."""

    image: Image.Image
    """Mode RGB, upright, transparency on white; without EXIF, so that nobody turns it a second time."""
    flags: tuple[str, ...]
    """What was done to get there: of this module's flags and those of `pipeline.to_rgb`, in no promised order."""
    metadata: tuple[tuple[str, str], ...] = ()
    """What the file says of the picture, see `pipeline.metadata`."""


def decode_image(encoded: bytes, *, max_pixels: int, min_decoded_fraction: float) -> DecodedImage:
    """Decodes the first frame of an image in one of `FORMATS`.

    Args:
        encoded: the whole file.
        max_pixels: width times height allowed, compared with the header before any pixel is decoded.
        min_decoded_fraction: share of its rows that a file which ends too early must still give, of 0 to 1.

    Raises:
        RowFailure: EMPTY, UNREADABLE (not an image we know), TRUNCATED, TOO_MANY_PIXELS, DECODER_OUT_OF_MEMORY, or
            DECODER_FAILED for whatever else a decoder throws.
    """
    if not encoded:
        raise RowFailure(ErrorKind.EMPTY, "the file has no bytes")
    try:
        with _no_pillow_limit():
            return _decode(encoded, max_pixels, min_decoded_fraction)
    except RowFailure:
        raise
    except UnidentifiedImageError:
        raise _unidentified(encoded) from None
    except Exception as error:  # decoders throw anything; the row keeps what they said
        raise _failure(encoded, error) from error


def upright_size(encoded: bytes, *, max_pixels: int) -> tuple[int, int]:
    """(width, height) in pixels of the image as a person would see it, from its header: no pixel is decoded.

    Args:
        encoded: the file, or so much of its beginning as holds the header; how much that is depends on the format.

    Raises:
        RowFailure: as `decode_image`, for what the header tells.
    """
    if not encoded:
        raise RowFailure(ErrorKind.EMPTY, "the file has no bytes")
    try:
        with _no_pillow_limit(), open_image(encoded) as image:
            _check_size(image, max_pixels)
            image.tile = []  # to be asked for metadata, a PNG would decode its pixels
            width, height = image.size
            # Of a TIFF, Pillow says the turned size from the beginning.
            is_on_its_side = image.format != "TIFF" and exif_orientation(image) in _ON_THEIR_SIDE
            return (height, width) if is_on_its_side else (width, height)
    except RowFailure:
        raise
    except UnidentifiedImageError:
        raise _unidentified(encoded) from None
    except Exception as error:  # decoders throw anything; the row keeps what they said
        raise _failure(encoded, error) from error


def _decode(encoded: bytes, max_pixels: int, min_decoded_fraction: float) -> DecodedImage:
    with open_image(encoded) as image:
        _check_size(image, max_pixels)
        # Pillow turns TIFF itself while loading, and forgets that it did.
        turned_by_pillow = image.format == "TIFF" and exif_orientation(image) in TRANSPOSE
        try:
            image.load()
        except Exception as error:  # decoders throw anything
            failure = _failure(encoded, error)
            if failure.error.kind is not ErrorKind.TRUNCATED:
                raise failure from error
            image.close()  # its canvas is as large as those to come
        else:
            return _as_seen(*to_rgb(image), source=image, is_turned=turned_by_pillow)
    return _decode_truncated(encoded, failure, min_decoded_fraction)


def _decode_truncated(encoded: bytes, failure: RowFailure, min_decoded_fraction: float) -> DecodedImage:
    with open_image(encoded) as source:
        partial = decode_partly(lambda: open_image(encoded))
        num_rows = source.height if partial is None else partial.image.height
        num_decoded = 0 if partial is None else int(partial.is_decoded.sum())
        if partial is None or num_decoded < min_decoded_fraction * num_rows:
            message = (
                f"{failure}: {num_decoded} of its {num_rows} rows ({num_decoded / num_rows:.1%}) can be decoded, "
                f"less than min_decoded_fraction = {min_decoded_fraction:g}"
            )
            raise RowFailure(ErrorKind.TRUNCATED, message)
        rgb, flags = to_rgb(partial.image)
        source.tile = []  # to be asked for metadata, a PNG would decode its pixels
        partial.paint_missing_rows(rgb)
        return _as_seen(rgb, (*flags, TRUNCATED), source=source, is_turned=False)


def open_image(encoded: bytes) -> ImageFile.ImageFile:
    return Image.open(io.BytesIO(encoded), formats=FORMATS)


def _as_seen(rgb: Image.Image, flags: tuple[str, ...], *, source: Image.Image, is_turned: bool) -> DecodedImage:
    """`rgb` turned as the file `source` asks for, unless it is already."""
    transpose = TRANSPOSE.get(exif_orientation(source))
    if transpose is not None:
        rgb = rgb.transpose(transpose)
    if transpose is not None or is_turned:
        flags = (*flags, EXIF_ROTATED)
    rgb.info.clear()
    return DecodedImage(image=rgb, flags=(*flags, *_frame_flags(source)), metadata=metadata_of(source))


def _check_size(image: Image.Image, max_pixels: int) -> None:
    width, height = image.size
    if width < 1 or height < 1:
        raise RowFailure(ErrorKind.DECODER_FAILED, f"the header says {width}x{height} pixels: there is no picture")
    if width * height > max_pixels:
        message = f"{width}x{height} = {width * height} pixels, more than max_pixels = {max_pixels}"
        raise RowFailure(ErrorKind.TOO_MANY_PIXELS, message)


def exif_orientation(image: Image.Image) -> int:
    """The EXIF orientation, or 1 (upright) where there is none."""
    try:
        orientation = image.getexif().get(_ORIENTATION_TAG)
    except Exception:  # noqa: BLE001 - broken metadata throws anything, and the pixels are still good
        return 1
    return orientation if isinstance(orientation, int) else 1


def _frame_flags(image: Image.Image) -> tuple[str, ...]:
    try:
        several = bool(getattr(image, "is_animated", False))
    except Exception:  # noqa: BLE001 - a second frame that is broken takes nothing from the first
        return ()
    # The further pictures of an MPO are previews and depth maps: nearly every phone writes them.
    if not several or image.format == "MPO":
        return ()
    return (MULTI_PAGE,) if image.format == "TIFF" else (ANIMATED,)


def _unidentified(encoded: bytes) -> RowFailure:
    kind = looks_like(encoded)
    if is_cut_off(encoded):
        return RowFailure(ErrorKind.TRUNCATED, f"{kind} that ends within its header, after {len(encoded)} bytes")
    return RowFailure(ErrorKind.UNREADABLE, f"not a readable image: it looks like {kind} ({len(encoded)} bytes)")


def _failure(encoded: bytes, error: Exception) -> RowFailure:
    said = f"{type(error).__name__}: {' '.join(str(error).split())}"[:300]
    if isinstance(error, MemoryError) or "out of memory" in said.lower():
        return RowFailure(ErrorKind.DECODER_OUT_OF_MEMORY, f"{looks_like(encoded)} for which memory ran out ({said})")
    if isinstance(error, EOFError) or any(word in said.lower() for word in _TRUNCATION_WORDS) or is_cut_off(encoded):
        message = f"{looks_like(encoded)} that ends too early, after {len(encoded)} bytes ({said})"
        return RowFailure(ErrorKind.TRUNCATED, message)
    return RowFailure(ErrorKind.DECODER_FAILED, f"{looks_like(encoded)} that its decoder refuses ({said})")


class _PillowLimit:
    """Who lifted Pillow's own pixel limit: it is one setting for the process, and several threads decode at once."""

    lock = threading.Lock()
    num_users = 0
    saved: int | None = None


@contextmanager
def _no_pillow_limit() -> Iterator[None]:
    """Our limit is checked instead; Pillow's would warn or raise below it, both on opening and on loading a TIFF."""
    with _PillowLimit.lock:
        if _PillowLimit.num_users == 0:
            _PillowLimit.saved, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        _PillowLimit.num_users += 1
    try:
        yield
    finally:
        with _PillowLimit.lock:
            _PillowLimit.num_users -= 1
            if _PillowLimit.num_users == 0:
                Image.MAX_IMAGE_PIXELS = _PillowLimit.saved
