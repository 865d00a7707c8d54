"""An image -> one global view and a grid of local tiles, as uint8 (numpy, PIL and our C only, no torch).

Knows nothing of tokens or tensors: normalisation happens on the device that runs the vision encoder.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.resample import Place, scale_onto

PAD_LEVEL = 127
"""int(0.5 * 255): the grey that fills what the picture leaves free; 127, not 127.5, as the reference truncates."""

MAX_TILED_IMAGES = 2
"""A conversation with more images than this is not tiled: each image is a 1x1 grid (reference-facts, section 1)."""

Resolution = tuple[int, int]
"""(width, height) in pixels; both multiples of the tile size, which is the first candidate's width."""


@dataclass(frozen=True, kw_only=True)
class TiledImage:
    """`tiles` uint8 [N, S, S, 3]: the global view, then the local tiles row by row; N = 1 + tiles_wide * tiles_high."""

    tiles: np.ndarray
    grid: tuple[int, int]
    """(tiles_wide, tiles_high)"""

    def untiled(self) -> "TiledImage":
        """The same image on a 1x1 grid, as in conversations of more than two images: the one local tile repeats the
        global view, because on such a grid both are the same scaled picture."""
        return TiledImage(tiles=self.tiles[[0, 0]], grid=(1, 1))


def select_resolution(width_px: int, height_px: int, candidates: Sequence[Resolution]) -> Resolution:
    """The candidate on which the picture keeps most of its pixels; then the one that wastes least; then the first.

    The order of the float operations is the reference's: scaled sides such as 383.999.. are truncated, and exact
    arithmetic would choose another grid for one size in a thousand.
    """
    best, best_effective, best_wasted = candidates[0], -1, 0
    for width, height in candidates:
        scale = min(width / width_px, height / height_px)
        scaled_area = int(width_px * scale) * int(height_px * scale)
        effective = min(scaled_area, width_px * height_px)
        wasted = width * height - effective
        if effective > best_effective or (effective == best_effective and wasted < best_wasted):
            best, best_effective, best_wasted = (width, height), effective, wasted
    return best


def tile_image(image: Image.Image, candidates: Sequence[Resolution], *, dynamic: bool = True) -> TiledImage:
    """Cuts an RGB image into its global view and local tiles.

    Args:
        image: mode RGB, any size; very thin images are stretched to at least one pixel a side.
        candidates: the checkpoint's `candidate_resolutions`.
        dynamic: False where a conversation has more than two images; the grid is then 1x1.
    """
    if image.mode != "RGB":
        raise ValueError(f"tile_image needs an RGB image, got mode {image.mode!r}: convert it first")
    if 0 in image.size:
        raise ValueError(f"an image of {image.width}x{image.height} px has nothing to tile")
    size = candidates[0][0]
    width, height = select_resolution(image.width, image.height, candidates) if dynamic else (size, size)
    if width % size or height % size:
        raise ValueError(f"a resolution of {width}x{height} px is not made of tiles of {size} px")
    tiles_wide, tiles_high = width // size, height // size
    tiles = np.empty((1 + tiles_wide * tiles_high, size, size, 3), dtype=np.uint8)
    _fit(image, tiles[:1], 1, size, size)
    if (tiles_wide, tiles_high) == (1, 1):
        tiles[1] = tiles[0]
    else:
        _fit(image, tiles[1:], tiles_wide, width, height)
    return TiledImage(tiles=tiles, grid=(tiles_wide, tiles_high))


def fitted(image_width: int, image_height: int, width: int, height: int) -> tuple[int, int, int, int]:
    """(left, top, width, height) in pixels of where a picture lies on a canvas that it is scaled to fit."""
    image_ratio, ratio = image_width / image_height, width / height
    inner_width, inner_height = width, height
    if image_ratio > ratio:
        inner_height = max(1, round(image_height / image_width * width))
    elif image_ratio < ratio:
        inner_width = max(1, round(image_width / image_height * height))
    return round((width - inner_width) * 0.5), round((height - inner_height) * 0.5), inner_width, inner_height


def _fit(image: Image.Image, tiles_NSS3: np.ndarray, tiles_wide: int, width: int, height: int) -> None:
    """The image scaled to fit a mosaic of tiles (bicubic, aspect kept) and centred on grey.

    Rounding is PIL.ImageOps.pad's, which the reference uses: sides and offsets go to the even neighbour at .5. It is
    not called itself because it refuses images so thin that a side rounds to 0.
    """
    left, top, inner_width, inner_height = fitted(image.width, image.height, width, height)
    if (inner_width, inner_height) != (width, height):
        tiles_NSS3.fill(PAD_LEVEL)
    scale_onto(tiles_NSS3, tiles_wide, image, Place(left=left, top=top, width=inner_width, height=inner_height))
