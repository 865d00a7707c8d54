"""Encoded images -> pictures to look at, decoded in the sandbox: never in the process that shows or draws on them."""

from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from PIL import Image

from model.tiling import fitted
from pipeline.prepare import TileImage
from schemas.errors import RowError
from schemas.job import LimitsSpec
from schemas.rows import TILES_COLUMN, ImageRow, RowImage, rows_of, to_columns

MAX_SIDE_PX = 8192
"""Of what `large_preview` gives: the sandbox hands over a square of this side, 200 MB, twice."""


@dataclass(frozen=True, kw_only=True)
class Preview:
    """`pixels` uint8 [height, width, 3], upright; the size in pixels is the image's own."""

    pixels: np.ndarray
    width_px: int
    height_px: int


class Previews:
    """May be asked from several threads at once. Close it."""

    def __init__(self, limits: LimitsSpec, *, side: int, num_processes: int = 1) -> None:
        """side: of the square in pixels that a preview fits into."""
        self._side = side
        self._tiler = TileImage(
            candidate_resolutions=((side, side),),
            max_pixels=limits.max_pixels,
            min_decoded_fraction=limits.min_decoded_fraction,
            decode_timeout_s=limits.decode_timeout_s,
            decode_memory_mb=limits.decode_memory_mb,
            num_threads=num_processes,
        )
        open_processes(self._tiler)

    def of(self, encoded: Sequence[bytes]) -> list[Preview] | RowError:
        """Of all images, or why one of them has none."""
        row = ImageRow(
            sample_id="",
            images=tuple(RowImage(uri="") for _ in encoded),
            manifest_shard="",
            recipes=(),
        )
        block = self._tiler(to_columns([row], encoded=[list(encoded)]))
        (seen,) = rows_of(block)
        if seen.error is not None:
            return seen.error
        pictures = block[TILES_COLUMN][0][::2]  # the global view of each; on a grid of 1x1 the local tile repeats it
        return [
            Preview(pixels=self._cut(pixels, image), width_px=image.width_px, height_px=image.height_px)
            for pixels, image in zip(pictures, seen.images, strict=True)
        ]

    def close(self) -> None:
        self._tiler.close()

    def _cut(self, pixels: np.ndarray, image: RowImage) -> np.ndarray:
        """Without the grey around the picture, and no larger than the image is."""
        left, top, width, height = fitted(image.width_px, image.height_px, self._side, self._side)
        inner = pixels[top : top + height, left : left + width]
        if width <= image.width_px:
            return inner
        return np.asarray(Image.fromarray(inner).resize((image.width_px, image.height_px), Image.Resampling.BICUBIC))


def large_preview(encoded: bytes, limits: LimitsSpec, *, width_px: int, height_px: int) -> Preview | RowError:
    """The pixels of one image as they are; of one with a side of more than `MAX_SIDE_PX`, made smaller to fit.

    Args:
        width_px, height_px: of the image, upright.
    """
    with closing(Previews(limits, side=min(max(width_px, height_px), MAX_SIDE_PX))) as previews:
        found = previews.of([encoded])
    return found if isinstance(found, RowError) else found[0]


def open_processes(tiler: TileImage) -> None:
    """Starts them before several threads ask: a stage opens them at its first call, and for one caller at a time."""
    tiler(to_columns([], encoded=[]))
