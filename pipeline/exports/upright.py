"""An encoded image -> the bytes that an export holds: as they are if the pixels stand upright, else turned.

Boxes are in pixels of the upright image, and many readers do not turn what they read: a copy must not need it.
"""

import io
import posixpath
from dataclasses import dataclass
from typing import Any

from PIL import Image

from pipeline.decode import TRANSPOSE, decode_image, exif_orientation, open_image
from schemas.errors import ErrorKind, RowFailure
from schemas.job import LimitsSpec

QUALITY = 95
_ORIENTATION_TAG = 0x0112

_EXTENSIONS = {
    "JPEG": ("jpg", "jpeg", "jpe", "jfif"),
    "MPO": ("jpg", "jpeg", "jpe", "jfif"),
    "PNG": ("png", "apng"),
    "WEBP": ("webp",),
    "TIFF": ("tif", "tiff"),
    "BMP": ("bmp", "dib"),
    "DIB": ("bmp", "dib"),
    "GIF": ("gif",),
    "AVIF": ("avif", "avifs"),
    "JPEG2000": ("jp2", "j2k", "jpx", "jpf"),
    "PPM": ("ppm", "pgm", "pbm", "pnm", "pfm"),
}
_OPTIONS: dict[str, dict[str, Any]] = {
    "JPEG": {"quality": QUALITY, "subsampling": 0},
    "WEBP": {"quality": QUALITY},
    "AVIF": {"quality": QUALITY, "max_threads": 1},
    "TIFF": {"compression": "tiff_lzw"},
}
_KEPT = ("transparency", "dpi")


@dataclass(frozen=True, kw_only=True)
class Upright:
    """`extension` is the name's own where it fits the bytes, and theirs where it does not. `size`: width, height."""

    encoded: bytes
    extension: str
    size: tuple[int, int]
    is_turned: bool


def upright(encoded: bytes, *, uri: str, limits: LimitsSpec) -> Upright:
    """Decodes nothing unless it has to. These bytes were decoded when they were labelled, in a process of their own:
    their hash is for the caller to compare.

    Raises:
        RowFailure: they cannot be decoded here.
    """
    try:
        with open_image(encoded) as image:
            format_, size, orientation = str(image.format), image.size, exif_orientation(image)
    except Exception as error:  # decoders throw anything
        raise RowFailure(ErrorKind.UNREADABLE, f"{uri}: {type(error).__name__}: {error}") from error
    if orientation not in TRANSPOSE:
        return Upright(encoded=encoded, extension=_extension(uri, format_), size=size, is_turned=False)
    try:
        turned, size = _turned(encoded, format_)
    except Exception:  # noqa: BLE001 - cut short, or of a mode that cannot be written as it is
        format_ = "JPEG" if format_ in ("JPEG", "MPO") else "PNG"
        turned, size = _redrawn(encoded, format_, limits)
    return Upright(encoded=turned, extension=_extension(uri, format_), size=size, is_turned=True)


def _turned(encoded: bytes, format_: str) -> tuple[bytes, tuple[int, int]]:
    with open_image(encoded) as image:
        transpose = TRANSPOSE[exif_orientation(image)]
        exif, profile = image.getexif(), image.info.get("icc_profile")
        image.load()
        # Pillow turns TIFF itself while loading.
        turned: Image.Image = image.copy() if format_ == "TIFF" else image.transpose(transpose)
    turned.info = {name: image.info[name] for name in _KEPT if name in image.info}
    exif.pop(_ORIENTATION_TAG, None)
    options = {} if format_ == "TIFF" else {"exif": exif.tobytes()}
    return _saved(turned, "JPEG" if format_ == "MPO" else format_, icc_profile=profile, **options), turned.size


def _redrawn(encoded: bytes, format_: str, limits: LimitsSpec) -> tuple[bytes, tuple[int, int]]:
    """As the model saw it, which is less than there is: no transparency, 8 bits."""
    decoded = decode_image(
        encoded, max_pixels=limits.max_pixels, min_decoded_fraction=limits.min_decoded_fraction
    ).image
    return _saved(decoded, format_), decoded.size


def _saved(image: Image.Image, format_: str, **options: Any) -> bytes:
    file = io.BytesIO()
    image.save(file, format_, **_OPTIONS.get(format_, {}), **options)
    return file.getvalue()


def _extension(uri: str, format_: str) -> str:
    extension = posixpath.splitext(uri)[1].removeprefix(".").lower()
    fitting = _EXTENSIONS[format_]
    return extension if extension in fitting else fitting[0]
