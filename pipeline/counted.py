"""A stage -> the same stage, whose blocks are counted in the metrics of the process that it runs in.

The stages themselves know nothing of it, nor does this file know what runs them.
"""

import asyncio
import inspect
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline import metric_names as names
from pipeline.increments import of_engine, of_fetched, of_labelled, of_stage, zeros_of_labels
from pipeline.metrics import Increment, recorder
from pipeline.recipes import Recipe

Block = Mapping[str, Any]


def _nothing(block: Block) -> list[Increment]:
    return []


@dataclass(frozen=True, kw_only=True)
class Counting:
    """What is counted of one stage of one job's run. Can be pickled."""

    job: str
    stage: str
    of_block: Callable[[Block], list[Increment]] = _nothing
    """Of a block that the stage has made, besides its time."""
    zeros: Sequence[Increment] = ()

    def start(self) -> None:
        recorder().start(
            self.job, (*of_stage(self.stage, 0), *self.zeros, Increment(metric=names.STORE_RETRIES, value=0))
        )

    def add(self, block: Block, seconds: float) -> None:
        recorder().add_all((*self.of_block(block), *of_stage(self.stage, seconds)))


def counted_fetch(stage: type[Any], job: str) -> type[Any]:
    zeros = (Increment(metric=names.FETCHED_BYTES, value=0),)
    return counted(stage, Counting(job=job, stage="fetch", of_block=of_fetched, zeros=zeros))


def counted_label(stage: type[Any], job: str, recipes: Sequence[Recipe]) -> type[Any]:
    """Of `LabelImage`, with what its engine did."""
    counting = Counting(job=job, stage="label", of_block=of_labelled, zeros=zeros_of_labels(recipes))
    return _counted_async(stage, counting)


def counted(stage: type[Any], counting: Counting) -> type[Any]:
    """It keeps its name, which Ray shows."""

    def init(self: Any, **arguments: Any) -> None:
        counting.start()
        stage.__init__(self, **arguments)

    def call(self: Any, block: Block) -> Any:
        counting.start()  # of a task, the constructor has run elsewhere
        began_s = time.perf_counter()
        made = stage.__call__(self, block)
        counting.add(made, time.perf_counter() - began_s)
        return made

    def call_generator(self: Any, block: Block) -> Iterable[Block]:
        counting.start()
        blocks = iter(stage.__call__(self, block))
        while True:
            began_s = time.perf_counter()
            made = next(blocks, None)
            if made is None:
                return
            counting.add(made, time.perf_counter() - began_s)
            yield made

    is_generator = inspect.isgeneratorfunction(stage.__call__)
    return type(stage.__name__, (stage,), {"__init__": init, "__call__": call_generator if is_generator else call})


def _counted_async(stage: type[Any], counting: Counting) -> type[Any]:
    def init(self: Any, **arguments: Any) -> None:
        counting.start()
        stage.__init__(self, **arguments)
        self._stats_before = None
        self._one_at_a_time = asyncio.Lock()

    async def call(self: Any, block: Block) -> AsyncIterator[Block]:
        counting.start()
        began_s = time.perf_counter()
        async for made in stage.__call__(self, block):
            async with self._one_at_a_time:  # several blocks are in hand, and their engine's sums only grow
                stats = await asyncio.to_thread(self.stats)
                recorder().add_all(of_engine(stats, self._stats_before))
                self._stats_before = stats
            counting.add(made, time.perf_counter() - began_s)
            yield made

    return type(stage.__name__, (stage,), {"__init__": init, "__call__": call})
