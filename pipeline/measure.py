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
from schemas.rows import ImageRow, rows_of

Block = dict[str, Any]


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
    max_s: float,
) -> Measured:
    """Labels the rows of the blocks; begins no block once `max_s` seconds have passed.

    The first row is labelled once before the clock runs: the first steps of an engine are slower than all others.

    Raises ValueError for a checkpoint that does not load.
    """
    process_start_s = _process_start_s()
    began = time.monotonic()
    stage = LabelImage(replica=replica, recipes=recipes)
    load_s = time.monotonic() - began
    try:
        _warm_up(stage, tile(fetch(_first_row(blocks[0]))))
        timed = _Tiled(blocks, fetch, tile, deadline_s=time.monotonic() + max_s)
        rows, labeling_s = asyncio.run(_label_all(stage, timed))
        return Measured(
            rows=tuple(rows),
            labeling_s=labeling_s,
            tiling_s=timed.busy_s,
            num_tile_threads=tile.num_threads,
            load_s=load_s,
            process_start_s=process_start_s,
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
    """The blocks, each fetched and tiled when it is asked for."""

    def __init__(self, blocks: Sequence[Block], fetch: FetchImage, tile: TileImage, *, deadline_s: float) -> None:
        self._blocks, self._fetch, self._tile, self._deadline_s = iter(blocks), fetch, tile, deadline_s
        self._is_first = True
        self.busy_s = 0.0

    def next(self) -> Block | None:
        if time.monotonic() > self._deadline_s and not self._is_first:
            return None
        self._is_first = False
        block = next(self._blocks, None)
        if block is None:
            return None
        began = time.monotonic()
        tiled = self._tile(self._fetch(block))
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
    """The shorter of two: the first may have to read the libraries from the disk."""
    took_s = []
    for _ in range(2):
        began = time.monotonic()
        subprocess.run([sys.executable, "-c", "import torch, ray.data"], check=True)
        took_s.append(time.monotonic() - began)
    return min(took_s)


def _warm_up(stage: LabelImage, block: Block) -> None:
    async def label() -> None:
        async for _ in stage(block):
            pass

    asyncio.run(label())


def _first_row(block: Block) -> Block:
    return {name: values[:1] for name, values in block.items()}
