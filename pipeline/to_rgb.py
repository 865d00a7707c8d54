"""A decoded image of any Pillow mode -> RGB, as a person would see it, and what had to be done for that.

Knows nothing of files: orientation, frames and limits are settled before.
"""

import numpy as np
from PIL import Image, ImageCms

ALPHA_COMPOSITED = "alpha_composited"
"""The image had transparent pixels; they were put on white."""
SCALED_16BIT = "scaled_16bit"
"""Grey of 16 bits; 0..65535 became 0..255."""
RANGE_STRETCHED = "range_stretched"
"""Float or 32-bit grey without a known range; the darkest value became 0 and the brightest 255."""

_WHITE = (255, 255, 255)


def to_rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    """The image in mode RGB, 8 bits, and the flags of this module that apply.

    Plain conversion would drop alpha, clip 16-bit grey to white, and refuse LAB and premultiplied alpha.
    """
    if image.mode.startswith("I;16") or image.mode in ("I", "F"):
        return _grey_to_rgb(image)
    if image.mode == "LAB":
        return _lab_to_rgb(image), ()
    if image.has_transparency_data:
        return _on_white(_to_rgba(image))
    return image.convert("RGB"), ()


def _to_rgba(image: Image.Image) -> Image.Image:
    transparent = image.info.get("transparency")
    if image.mode == "RGB" and isinstance(transparent, tuple) and max(transparent) > 255:
        # A 16-bit PNG: Pillow keeps the high bytes of its pixels, but both bytes of its transparent colour.
        image = image.copy()
        image.info["transparency"] = tuple(level >> 8 for level in transparent)
    if image.mode == "La":
        image = image.convert("LA")
    return image.convert("RGBA")


def _on_white(rgba: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    alpha = rgba.getchannel("A")
    rgb = rgba.convert("RGB")
    lowest, _ = alpha.getextrema()
    if lowest == 255:
        return rgb, ()
    canvas = Image.new("RGB", rgba.size, _WHITE)
    canvas.paste(rgb, mask=alpha)
    return canvas, (ALPHA_COMPOSITED,)


def _lab_to_rgb(image: Image.Image) -> Image.Image:
    lab, srgb = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
    converted = ImageCms.profileToProfile(image, lab, srgb, outputMode="RGB")
    assert converted is not None, "only an in-place conversion returns nothing"
    return converted


def _grey_to_rgb(image: Image.Image) -> tuple[Image.Image, tuple[str, ...]]:
    values = np.asarray(image)
    if image.mode == "F":
        grey, flags = _float_to_grey(values)
    elif image.mode == "I" and (values.min() < 0 or values.max() > 65535):
        grey, flags = _stretched(values), (RANGE_STRETCHED,)
    else:
        grey, flags = _16bit_to_grey(values), (SCALED_16BIT,)
    transparent = image.info.get("transparency")
    if isinstance(transparent, int) and np.any(values == transparent):
        grey, flags = np.where(values == transparent, np.uint8(255), grey), (*flags, ALPHA_COMPOSITED)
    return Image.fromarray(grey).convert("RGB"), flags


def _16bit_to_grey(values: np.ndarray) -> np.ndarray:
    """255 * value / 65535 to the nearest integer, through a table: it needs no wide copy of a large image."""
    table = ((np.arange(65536) + 128) // 257).astype(np.uint8)
    return table[values]


def _float_to_grey(values: np.ndarray) -> tuple[np.ndarray, tuple[str, ...]]:
    finite = values[np.isfinite(values)]
    if finite.size == 0 or (finite.min() >= 0 and finite.max() <= 1):
        return _scaled(values, 0.0, 1.0), ()
    return _stretched(values), (RANGE_STRETCHED,)


def _stretched(values: np.ndarray) -> np.ndarray:
    finite = values[np.isfinite(values)]
    return _scaled(values, float(finite.min()), float(finite.max()))


def _scaled(values: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8 with `low` at 0 and `high` at 255; NaN is black, infinities are at their end of the range."""
    # float64: the range of float32 values can exceed what float32 holds.
    span = (high - low) or 1.0
    levels = np.clip(np.nan_to_num((values.astype(np.float64) - low) / span, nan=0.0), 0.0, 1.0)
    return np.rint(levels * 255).astype(np.uint8)
