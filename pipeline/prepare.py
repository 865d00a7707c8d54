"""Blocks of encoded images -> blocks of tiles, with the images' sizes and grids, and their flags, in their rows.

Does not know Ray, nor what a model makes of the tiles. Images are decoded in processes of their own.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from queue import SimpleQueue
from typing import Any

import numpy as np

from model.tiling import MAX_TILED_IMAGES
from pipeline.decode_child import DecodeSettings, PreparedImage
from pipeline.sandbox import DecodeSandbox
from schemas.errors import ErrorKind, RowError, RowFailure
from schemas.rows import ENCODED_COLUMN, TILES_COLUMN, ImageRow, Mark, RowImage, rows_of, to_columns


class TileImage:
    """Decodes and tiles the images of one block. No row raises; rows that already failed pass through.

    The first call starts the decoding processes, one for each thread; until then a stage can be pickled.
    """

    def __init__(
        self,
        *,
        candidate_resolutions: tuple[tuple[int, int], ...],
        max_pixels: int,
        min_decoded_fraction: float = 0.9,
        decode_timeout_s: float = 60.0,
        decode_memory_mb: int = 4096,
        num_threads: int = 1,
        mark_recipes: Collection[str] = (),
        max_marks: int = 16,
        headers_only: bool = False,
        child_module: str = "pipeline.decode_child",
    ) -> None:
        """Args:
        candidate_resolutions: the checkpoint's (width, height) pairs; the first one's width is the tile size S.
        max_pixels: largest image that is decoded.
        min_decoded_fraction: share of its rows that a file which ends too early must still give.
        decode_timeout_s: longest time for one image; its process is killed then.
        decode_memory_mb: address space in MiB of each decoding process.
        num_threads: rows of one block decoded at the same time; an image in flight holds its pixels in memory.
        mark_recipes: the recipes for which the marks of a row are drawn; without one of them pending they are left.
        max_marks: rows of more are not drawn, but fail: each is a picture with tiles of its own.
        headers_only: sizes and grids alone are wanted: no pixel is decoded, and every row has N = 0 tiles.
        child_module: what a decoding process runs, see `DecodeSandbox`.
        """
        if not candidate_resolutions or num_threads < 1:
            raise ValueError(
                f"TileImage needs candidate resolutions and at least one thread, "
                f"got {candidate_resolutions!r} and {num_threads}"
            )
        self._settings = DecodeSettings(
            # A config read from JSON, or sent through Arrow, has lists where tuples are meant.
            candidate_resolutions=tuple((int(width), int(height)) for width, height in candidate_resolutions),
            max_pixels=max_pixels,
            min_decoded_fraction=min_decoded_fraction,
            timeout_s=decode_timeout_s,
            memory_mb=decode_memory_mb,
            headers_only=headers_only,
        )
        self.num_threads = num_threads
        self._mark_recipes, self._max_marks = frozenset(mark_recipes), max_marks
        self._child_module = child_module
        self._sandboxes: SimpleQueue[DecodeSandbox] | None = None

    def __call__(self, block: Mapping[str, Iterable[Any]]) -> dict[str, Any]:
        """{row, carried, encoded} -> {row, carried, tiles}, in the same order.

        `tiles` is an object array of uint8 [N, S, S, 3]: of all images of a row, one after another, each with
        1 + tiles_wide * tiles_high of them; more than `MAX_TILED_IMAGES` images are not tiled. Those of the first image
        with one mark each follow, by the row's `marked_grids`. N = 0 for a row without images or with an error: one
        None would make Ray pickle the whole column.
        """
        if self._sandboxes is None:
            self._open_sandboxes()
        rows, encoded = rows_of(block), list(block[ENCODED_COLUMN])
        if self.num_threads == 1:
            prepared = [self._prepare(row, of_row) for row, of_row in zip(rows, encoded, strict=True)]
        else:
            with ThreadPoolExecutor(self.num_threads) as threads:
                prepared = list(threads.map(self._prepare, rows, encoded))
        columns: dict[str, Any] = to_columns([row for row, _ in prepared])
        columns[TILES_COLUMN] = _object_array([tiles for _, tiles in prepared])
        return columns

    def close(self) -> None:
        """Ends the decoding processes. To be called while no block is worked on; another block starts new ones."""
        if self._sandboxes is not None:
            for _ in range(self.num_threads):
                self._sandboxes.get().close()
            self._sandboxes = None

    def __del__(self) -> None:
        # Ray deletes its actors' stages without closing them. A constructor that raised has set nothing.
        if hasattr(self, "_sandboxes"):
            self.close()

    def _prepare(self, row: ImageRow, encoded: Sequence[bytes]) -> tuple[ImageRow, np.ndarray]:
        if row.error is not None or not row.images:
            return row, self._no_tiles()
        dynamic = len(row.images) <= MAX_TILED_IMAGES
        marks = row.marks if self._mark_recipes.intersection(row.recipes) else ()
        if len(marks) > self._max_marks:
            message = f"the sample has {len(marks)} marks to draw, more than limits.max_images = {self._max_marks}"
            return row.failed(RowError(kind=ErrorKind.BAD_MARK, message=message)), self._no_tiles()
        prepared: list[PreparedImage] = []
        for number, data in enumerate(encoded, start=1):
            try:
                prepared.append(self._prepare_in_sandbox(bytes(data), dynamic, marks if number == 1 else ()))
            except RowFailure as failure:
                return row.failed(failure.error.of_image(number, len(row.images))), self._no_tiles()
        return _with_what_was_seen(row, prepared), _joined_tiles(prepared)

    def _prepare_in_sandbox(self, encoded: bytes, dynamic: bool, marks: Sequence[Mark]) -> PreparedImage:
        assert self._sandboxes is not None, "the call that has rows has opened them"
        sandbox = self._sandboxes.get()
        try:
            return sandbox.prepare(encoded, dynamic=dynamic, marks=marks)
        finally:
            self._sandboxes.put(sandbox)

    def _open_sandboxes(self) -> None:
        self._sandboxes = SimpleQueue()
        for _ in range(self.num_threads):
            self._sandboxes.put(DecodeSandbox(self._settings, child_module=self._child_module))

    def _no_tiles(self) -> np.ndarray:
        size = self._settings.candidate_resolutions[0][0]
        return np.empty((0, size, size, 3), dtype=np.uint8)


def _with_what_was_seen(row: ImageRow, prepared: Sequence[PreparedImage]) -> ImageRow:
    return replace(
        row,
        images=tuple(map(_with_size, row.images, prepared)),
        flags=tuple(dict.fromkeys((*row.flags, *(flag for one in prepared for flag in one.flags)))),
        metadata=prepared[0].metadata,
        marked_grids=prepared[0].marked_grids,
    )


def _joined_tiles(prepared: Sequence[PreparedImage]) -> np.ndarray:
    """Of all images, and then of the marked pictures, which came with the first."""
    first, (wide, high) = prepared[0].tiles, prepared[0].grid
    if len(prepared) == 1:
        return first
    own = 1 + wide * high
    return np.concatenate([first[:own], *(one.tiles for one in prepared[1:]), first[own:]])


def _with_size(image: RowImage, prepared: PreparedImage) -> RowImage:
    (width_px, height_px), (tiles_wide, tiles_high) = prepared.size, prepared.grid
    return replace(image, width_px=width_px, height_px=height_px, tiles_wide=tiles_wide, tiles_high=tiles_high)


def _object_array(arrays: Sequence[np.ndarray]) -> np.ndarray:
    """One entry for each array; `np.array` would stack those of equal shape."""
    column = np.empty(len(arrays), dtype=object)
    for index, array in enumerate(arrays):
        column[index] = array
    return column
