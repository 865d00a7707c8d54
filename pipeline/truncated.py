"""An image file that ends too early -> its pixels as far as they were decoded, and which rows those are.

Knows neither why the file ends nor how much of it is enough.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFile

from model.tiling import PAD_LEVEL

_FILL_LEVELS = (0, 255)
_ROWS_AT_ONCE = 256
"""Rows compared at a time: two canvases of a large image are in memory already."""


@dataclass(frozen=True, kw_only=True)
class PartialImage:
    """`image` has the mode of the file; its missing rows repeat a decoded neighbour, so that no value is made up."""

    image: Image.Image
    is_decoded: np.ndarray
    """bool [height]: rows of which every pixel came out of the decoder."""

    def paint_missing_rows(self, rgb: Image.Image) -> None:
        """Makes the missing rows of `rgb`, which is `image` converted, the grey that tiling pads with.

        A missing row between two decoded ones (an interlaced file lacks those) keeps what it repeats.
        """
        missing = ~self.is_decoded
        missing[1:-1] &= ~(self.is_decoded[:-2] & self.is_decoded[2:])
        for y in np.flatnonzero(missing).tolist():
            rgb.paste((PAD_LEVEL, PAD_LEVEL, PAD_LEVEL), (0, y, rgb.width, y + 1))


def decode_partly(open_image: Callable[[], ImageFile.ImageFile]) -> PartialImage | None:
    """Decodes the file onto a dark and onto a light canvas; the rows on which both agree were decoded.

    What a decoder would invent for the missing part is not asked for, so that a progressive JPEG without its end has
    no decoded rows: none of them has all of its scans. Nor have WebP and AVIF, which are decoded whole or not at all.

    Args:
        open_image: opens the file anew at each call, without decoding it.

    Returns:
        None where no row was decoded. Raises MemoryError; what else the decoder raises is why this is called.
    """
    dark, light = (_load_onto(open_image(), level) for level in _FILL_LEVELS)
    if dark is None or light is None:
        return None
    is_decoded = _agreeing_rows(dark, light)
    if not is_decoded.any():
        return None
    _repeat_decoded_rows(dark, is_decoded)
    return PartialImage(image=dark, is_decoded=is_decoded)


def _load_onto(image: ImageFile.ImageFile, level: int) -> Image.Image | None:
    """What the decoder leaves on a canvas that is `level` everywhere, turned as in the file; None without a canvas."""
    prepare, canvases = image.load_prepare, []

    def prepare_filled() -> None:
        prepare()
        num_bands = Image.getmodebands(image.im.mode)
        image.im.paste((level,) * num_bands if num_bands > 1 else level, (0, 0, *image.im.size))
        canvases.append(image.im)

    image.load_prepare = prepare_filled  # type: ignore[method-assign]
    image.load_end = lambda: None  # type: ignore[method-assign] # here Pillow would turn a TIFF
    try:
        image.load()
    except MemoryError:
        raise
    except Exception:  # noqa: BLE001 - why it raises is known: this is its second time
        image.tile = []
    try:
        return image.copy() if canvases else None
    finally:
        image.close()  # three canvases of the largest image are in memory here, and would be four


def _agreeing_rows(dark: Image.Image, light: Image.Image) -> np.ndarray:
    tops = range(0, dark.height, _ROWS_AT_ONCE)
    return np.concatenate([(_rows(dark, top) == _rows(light, top)).all(axis=1) for top in tops])


def _rows(image: Image.Image, top: int) -> np.ndarray:
    """uint8 [rows, bytes of a row]"""
    bottom = min(top + _ROWS_AT_ONCE, image.height)
    band = image.crop((0, top, image.width, bottom))
    return np.frombuffer(band.tobytes(), dtype=np.uint8).reshape(bottom - top, -1)


def _repeat_decoded_rows(image: Image.Image, is_decoded: np.ndarray) -> None:
    """Fills each missing row with the nearest decoded one above it, or with the first one where there is none above."""
    nearest = np.maximum.accumulate(np.where(is_decoded, np.arange(len(is_decoded)), np.argmax(is_decoded)))
    for y in np.flatnonzero(~is_decoded).tolist():
        source = int(nearest[y])
        image.paste(image.crop((0, source, image.width, source + 1)), (0, y))
