"""Blocks of encoded images -> blocks of tiles, with each image's size, grid and flags in its row.

Does not know Ray, nor what a model makes of the tiles.
"""

from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from model.tiling import TiledImage, tile_image
from pipeline.decode import decode_image
from schemas.errors import ErrorKind, RowFailure
from schemas.rows import ENCODED_COLUMN, TILES_COLUMN, ImageRow, rows_of, to_columns


class TileImage:
    """Decodes and tiles the images of one block. No row raises; rows that already failed pass through."""

    def __init__(
        self,
        *,
        candidate_resolutions: tuple[tuple[int, int], ...],
        max_pixels: int,
        num_threads: int = 1,
    ) -> None:
        """Args:
        candidate_resolutions: the checkpoint's (width, height) pairs; the first one's width is the tile size S.
        max_pixels: largest image that is decoded.
        num_threads: images of one block decoded at the same time; each one in flight holds its pixels in memory.
        """
        if not candidate_resolutions or num_threads < 1:
            raise ValueError(
                f"TileImage needs candidate resolutions and at least one thread, "
                f"got {candidate_resolutions!r} and {num_threads}"
            )
        # A config read from JSON, or sent through Arrow, has lists where tuples are meant.
        self._candidates = tuple((int(width), int(height)) for width, height in candidate_resolutions)
        self._max_pixels = max_pixels
        self._num_threads = num_threads

    def __call__(self, block: Mapping[str, Iterable[Any]]) -> dict[str, Any]:
        """{row, carried, encoded} -> {row, carried, tiles}, in the same order.

        `tiles` is an object array of uint8 [N, S, S, 3], N = 1 + tiles_wide * tiles_high, and N = 0 for a row with
        an error: one None would make Ray pickle the whole column.
        """
        rows, encoded = rows_of(block), [_as_bytes(value) for value in block[ENCODED_COLUMN]]
        if self._num_threads == 1:
            prepared = [self._prepare(row, data) for row, data in zip(rows, encoded, strict=True)]
        else:
            with ThreadPoolExecutor(self._num_threads) as threads:
                prepared = list(threads.map(self._prepare, rows, encoded))
        columns: dict[str, Any] = to_columns([row for row, _ in prepared])
        columns[TILES_COLUMN] = _object_array([tiles for _, tiles in prepared])
        return columns

    def _prepare(self, row: ImageRow, encoded: bytes) -> tuple[ImageRow, np.ndarray]:
        if row.error is not None:
            return row, self._no_tiles()
        try:
            decoded = decode_image(encoded, max_pixels=self._max_pixels)
            tiled = self._tile(decoded.image)
        except RowFailure as failure:
            return row.failed(failure.error), self._no_tiles()
        tiles_wide, tiles_high = tiled.grid
        row = replace(
            row,
            width_px=decoded.image.width,
            height_px=decoded.image.height,
            tiles_wide=int(tiles_wide),
            tiles_high=int(tiles_high),
            flags=(*row.flags, *decoded.flags),
        )
        return row, tiled.tiles

    def _tile(self, image: Image.Image) -> TiledImage:
        try:
            return tile_image(image, self._candidates)
        except Exception as error:  # the row keeps the reason, and its neighbours go on
            message = f"{image.width}x{image.height} pixels: {type(error).__name__}: {error}"
            raise RowFailure(ErrorKind.TILING_FAILED, message) from error

    def _no_tiles(self) -> np.ndarray:
        size = self._candidates[0][0]
        return np.empty((0, size, size, 3), dtype=np.uint8)


def _as_bytes(value: Any) -> bytes:
    """A row that failed earlier may come without bytes."""
    return b"" if value is None else bytes(value)


def _object_array(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """One entry for each array; `np.array` would stack those of equal shape."""
    column = np.empty(len(arrays), dtype=object)
    for index, array in enumerate(arrays):
        column[index] = array
    return column
