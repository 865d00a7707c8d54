"""The tiles of one sample -> views of an engine, each opened when a recipe first asks for it, all closed together."""

import asyncio
import contextlib
from collections.abc import Hashable, Sequence
from contextlib import AbstractAsyncContextManager
from types import TracebackType
from typing import Protocol

import numpy as np

from model.tiling import TiledImage
from pipeline.recipes.decode import View
from schemas.rows import ImageRow, Mark


class Opener(Protocol):
    """An engine, as far as it opens images."""

    def open(self, images: Sequence[TiledImage], /) -> AbstractAsyncContextManager[View]: ...


class OpenViews:
    """However many recipes look at the images, they are encoded once."""

    def __init__(self, engine: Opener, row: ImageRow, tiles: np.ndarray) -> None:
        """tiles: uint8 [N, S, S, 3], those of the row's images and then those of its marked pictures."""
        self._engine, self._row = engine, row
        pictures = split_tiles(tiles, [*((one.tiles_wide, one.tiles_high) for one in row.images), *row.marked_grids])
        self._images, self._marked = pictures[: len(row.images)], pictures[len(row.images) :]
        self._views: dict[Hashable, View] = {}
        self._opening = asyncio.Lock()
        self._stack = contextlib.AsyncExitStack()

    async def all_images(self) -> View:
        return await self._view("all", self._images)

    async def no_images(self) -> View:
        return await self._view("none", [])

    async def marked(self, mark: Mark) -> View:
        place = self._row.marks.index(mark)
        return await self._view(place, [self._marked[place]])

    async def __aenter__(self) -> "OpenViews":
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._stack.aclose()

    async def _view(self, key: Hashable, images: Sequence[TiledImage]) -> View:
        async with self._opening:
            if key not in self._views:
                self._views[key] = await self._stack.enter_async_context(self._engine.open(images))
            return self._views[key]


def split_tiles(tiles: np.ndarray, grids: Sequence[tuple[int, int]]) -> list[TiledImage]:
    """Tiles of several pictures in a row -> each with its own. The arrays are copies: Ray hands out read-only views of
    shared memory, and torch wants to own what it is given."""
    counts = [1 + wide * high for wide, high in grids]
    assert sum(counts) == len(tiles), f"{len(tiles)} tiles, but the grids {grids} have {sum(counts)}"
    ends = np.cumsum(counts)
    return [
        TiledImage(tiles=np.array(tiles[end - count : end]), grid=grid)
        for end, count, grid in zip(ends, counts, grids, strict=True)
    ]
