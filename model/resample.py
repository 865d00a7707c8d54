"""A scaled picture onto a mosaic of tiles: by our C where it was built (`resample.c`), by Pillow elsewhere.

Both give the same pixels, those of Pillow's bicubic `Image.resize`. Scaling is most of what tiling costs, and tiling is
what keeps a GPU waiting; a machine without a C compiler labels as well, only with more CPUs.

Shapes: N tiles, S pixels a side, H and W pixels of a picture.
"""

import ctypes
import functools
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.native import load

_BAND_PX = 1 << 22
"""Of an image, what is copied at once with four bytes a pixel."""
_LANES = 64
"""As in resample.c."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where on the mosaic a scaled picture lies, in pixels."""

    left: int
    top: int
    width: int
    height: int


def scale_onto(tiles_NSS3: np.ndarray, tiles_wide: int, image: Image.Image, place: Place) -> None:
    """Scales an image to `place` and writes it there; what lies around it is left as it is.

    Args:
        tiles_NSS3: uint8, contiguous, rows of `tiles_wide` tiles from the top, each from the left.
        image: mode RGB.

    Raises:
        ValueError: a place that is not all on the mosaic.
    """
    rows, remainder = divmod(len(tiles_NSS3), tiles_wide)
    size = tiles_NSS3.shape[1]
    right, bottom = place.left + place.width, place.top + place.height
    is_on_it = min(place.left, place.top) >= 0 and right <= tiles_wide * size and bottom <= rows * size
    if remainder or not is_on_it or not tiles_NSS3.flags.c_contiguous:
        raise ValueError(f"{place} is not on {len(tiles_NSS3)} tiles of {size} px in rows of {tiles_wide}")
    library = native()
    if library is None:
        _put(tiles_NSS3, tiles_wide, image.resize((place.width, place.height), Image.Resampling.BICUBIC), place)
    elif image.size == (place.width, place.height):
        _put(tiles_NSS3, tiles_wide, image, place)
    else:
        library.down(library.across(image, place.width), tiles_NSS3, tiles_wide, place)


@functools.cache
def native() -> "_Library | None":
    """None where the package was installed without a compiler, or not at all."""
    library = load("_resample", beside=__file__)
    return _Library(library) if library else None


def _put(tiles_NSS3: np.ndarray, tiles_wide: int, scaled: Image.Image, place: Place) -> None:
    pixels_HW3 = np.asarray(scaled)
    size = tiles_NSS3.shape[1]
    for index, tile in enumerate(tiles_NSS3):
        left, top = index % tiles_wide * size, index // tiles_wide * size
        rows = slice(max(top, place.top), min(top + size, place.top + place.height))
        columns = slice(max(left, place.left), min(left + size, place.left + place.width))
        if rows.start < rows.stop and columns.start < columns.stop:
            tile[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left] = pixels_HW3[
                rows.start - place.top : rows.stop - place.top, columns.start - place.left : columns.stop - place.left
            ]


@dataclass(frozen=True, kw_only=True)
class _Weights:
    """Of each output value: the first input value, how many, and their weights [size_out, taps]."""

    taps: int
    first: np.ndarray
    count: np.ndarray
    weights: np.ndarray


class _Library:
    """`resample.c`. Releases the GIL: threads scale side by side."""

    def __init__(self, library: ctypes.CDLL) -> None:
        address, size, taps = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int32
        weights = (taps, address, address, address)
        library.max_taps.argtypes, library.max_taps.restype = (size, size), taps
        library.weigh.argtypes, library.weigh.restype = (size, size, *weights, address), None
        library.across.argtypes, library.across.restype = (address, size, size, size, *weights, address, address), None
        library.down.argtypes = (address, size, size, *weights, address, address, size, size, size, size)
        library.down.restype = None
        self._library = library

    def across(self, image: Image.Image, width_out: int) -> np.ndarray:
        """The image scaled in its width; uint8 [H, width_out, 3]."""
        if image.width == width_out:
            return np.asarray(image)
        weights = self._weights(image.width, width_out)
        scratch = np.empty(_LANES * image.width, np.uint8)
        out_HW3 = np.empty((image.height, width_out, 3), np.uint8)
        for top, height, pixels in _bands(image):
            self._library.across(
                *(pixels, height, image.width, width_out, *_arguments(weights)),
                *(scratch.ctypes.data, out_HW3[top:].ctypes.data),
            )
        return out_HW3

    def down(self, pixels_HW3: np.ndarray, tiles_NSS3: np.ndarray, tiles_wide: int, place: Place) -> None:
        """Scales the height, onto the tiles."""
        pixels_HW3 = np.ascontiguousarray(pixels_HW3)
        weights = self._weights(len(pixels_HW3), place.height)
        scratch = np.empty(3 * place.width, np.uint8)
        self._library.down(
            *(pixels_HW3.ctypes.data, place.width, place.height, *_arguments(weights), scratch.ctypes.data),
            *(tiles_NSS3.ctypes.data, tiles_NSS3.shape[1], tiles_wide, place.left, place.top),
        )

    def _weights(self, size_in: int, size_out: int) -> _Weights:
        taps = self._library.max_taps(size_in, size_out)
        found = _Weights(
            taps=taps,
            first=np.empty(size_out, np.int32),
            count=np.empty(size_out, np.int32),
            weights=np.empty((size_out, taps), np.int32),
        )
        scratch = np.empty(taps, np.float64)
        self._library.weigh(size_in, size_out, *_arguments(found), scratch.ctypes.data)
        return found


def _arguments(weights: _Weights) -> tuple[int, int, int, int]:
    return weights.taps, weights.first.ctypes.data, weights.count.ctypes.data, weights.weights.ctypes.data


def _bands(image: Image.Image) -> Iterator[tuple[int, int, bytes]]:
    """(first row, rows, pixels of four bytes each) from the top."""
    rows = max(1, _BAND_PX // image.width)
    for top in range(0, image.height, rows):
        height = min(rows, image.height - top)
        band = image if height == image.height else image.crop((0, top, image.width, top + height))
        yield top, height, band.tobytes("raw", "RGBX")
