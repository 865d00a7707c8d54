"""Some rows of a job -> the same rows labelled, and how long it took: the stages of a run in one process, without Ray.

As in a run, blocks are fetched and tiled ahead while others are labelled, and there are as many threads.
"""

import asyncio
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

from model.engine_stats import EngineStats
from pipeline.fetch import FetchImage
from pipeline.label import LabelImage, ReplicaConfig
from pipeline.placement import BLOCKS_IN_FLIGHT, Placement
from pipeline.prepare import TileImage
from pipeline.recipes import Recipe
from schemas.rows import ROW_COLUMN, ImageRow, rows_of

Block = dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Effort:
    """How much is measured: a few images that are quick say little of a machine that others use as well."""

    enough_rows: int
    enough_s: float
    max_s: float
    """After so long no further block is begun, however few there were: somebody waits."""

    def is_enough(self, num_rows: int, seconds: float) -> bool:
        if num_rows == 0:
            return False
        return seconds >= self.max_s or (num_rows >= self.enough_rows and seconds >= self.enough_s)


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What one replica did."""

    rows: tuple[ImageRow, ...]
    """Labelled or failed, in the order in which their blocks ended."""
    labeling_s: float
    """From the first tiled block to the last label."""
    tiling_s: float
    """Of fetching, decoding and tiling all of them, which went on beside the labeling."""
    num_tile_threads: int
    load_s: float
    """Of loading the model."""
    process_start_s: float
    """Of one fresh process that imports what the workers of a run import."""
    stats: EngineStats
    """Of the engine; with the one row that was labelled before the clock ran."""

    @property
    def s_per_image(self) -> float:
        return self.labeling_s / len(self.rows)


def measure(
    blocks: Sequence[Block],
    *,
    fetch: FetchImage,
    tile: TileImage,
    replica: ReplicaConfig,
    recipes: Sequence[Recipe],
    effort: Effort,
) -> Measured:
    """Labels the rows of the blocks, one block after another until that is effort enough.

    The first row is labelled once before the clock runs: the first steps of an engine are slower than all others.

    Raises ValueError for a checkpoint that does not load.
    """
    start_before_s = min(_process_start_s(), _process_start_s())  # the first may have to read from the disk
    began = time.monotonic()
    stage = LabelImage(replica=replica, recipes=recipes)
    load_s = time.monotonic() - began
    try:
        _warm_up(stage, tile(fetch(_first_row(blocks[0]))))
        timed = _Tiled(blocks, fetch, tile, effort)
        rows, labeling_s = asyncio.run(_label_all(stage, timed))
        return Measured(
            rows=tuple(rows),
            labeling_s=labeling_s,
            tiling_s=timed.busy_s,
            num_tile_threads=tile.num_threads,
            load_s=load_s,
            process_start_s=(start_before_s + _process_start_s()) / 2,
            stats=stage.stats(),
        )
    finally:
        stage.close()


def in_blocks(rows: Sequence[ImageRow], placement: Placement, num_images: int) -> Iterator[list[ImageRow]]:
    """As a run on so many images cuts them."""
    size = placement.rows_per_block(num_images)
    for first in range(0, len(rows), size):
        yield list(rows[first : first + size])


class _Tiled:
    """The blocks, each fetched and tiled when it is asked for, as long as it takes."""

    def __init__(self, blocks: Sequence[Block], fetch: FetchImage, tile: TileImage, effort: Effort) -> None:
        self._blocks, self._fetch, self._tile, self._effort = iter(blocks), fetch, tile, effort
        self._began, self._num_rows = time.monotonic(), 0
        self.busy_s = 0.0

    def next(self) -> Block | None:
        began = time.monotonic()
        if self._effort.is_enough(self._num_rows, began - self._began):
            return None
        block = next(self._blocks, None)
        if block is None:
            return None
        tiled = self._tile(self._fetch(block))
        self._num_rows += len(block[ROW_COLUMN])
        self.busy_s += time.monotonic() - began
        return tiled


async def _label_all(stage: LabelImage, tiled: _Tiled) -> tuple[list[ImageRow], float]:
    """The rows, and the seconds from the first tiled block on."""
    waiting: asyncio.Queue[Block | None] = asyncio.Queue(BLOCKS_IN_FLIGHT)
    labelled: list[ImageRow] = []
    first_at: list[float] = []

    async def tile_ahead() -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(1) as thread:
            while (block := await loop.run_in_executor(thread, tiled.next)) is not None:
                first_at.append(time.monotonic())
                await waiting.put(block)
        for _ in range(BLOCKS_IN_FLIGHT):
            await waiting.put(None)

    async def label() -> None:
        while (block := await waiting.get()) is not None:
            async for columns in stage(block):
                labelled.extend(rows_of(columns))

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(tile_ahead())
        for _ in range(BLOCKS_IN_FLIGHT):
            tasks.create_task(label())
    return labelled, time.monotonic() - first_at[0]


def _process_start_s() -> float:
    began = time.monotonic()
    subprocess.run([sys.executable, "-c", "import torch, ray.data"], check=True)
    return time.monotonic() - began


def _warm_up(stage: LabelImage, block: Block) -> None:
    async def label() -> None:
        async for _ in stage(block):
            pass

    asyncio.run(label())


def _first_row(block: Block) -> Block:
    return {name: values[:1] for name, values in block.items()}
