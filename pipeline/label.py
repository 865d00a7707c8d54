"""Tiled images -> labelled rows: the stage that owns one engine replica, and the only importer of `model.engine`.

Knows the recipes' door and the engine's; neither prompts nor tensors.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import json
import os
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, TypeVar

import numpy as np

from pipeline.engine_work import EngineWork
from pipeline.in_hand import InHand
from pipeline.placement import Placement
from pipeline.recipes import Recipe
from pipeline.recipes.decode import RejectedAnswerError
from pipeline.recipes.watch import Watch
from pipeline.views import OpenViews
from pipeline.worker_deaths import WorkerDeaths
from schemas.errors import ErrorKind, RowError
from schemas.job import EngineSpec, JobSpec
from schemas.rows import ENGINE_COLUMN, TILES_COLUMN, ImageRow, Label, rows_of, to_columns

if TYPE_CHECKING:
    import torch

    from model.engine import Engine, EngineStats, RankedEngine


@dataclass(frozen=True, kw_only=True)
class ReplicaConfig:
    """What one replica loads. `device` and `dtype` are resolved on the machine it runs on."""

    checkpoint: str
    engine: EngineSpec
    expert_ranks: int = 1
    """Processes that the experts are spread over, on GPUs each on one of its own."""
    num_cpu_threads: int | None = None
    """Threads of tensor work on a CPU; None leaves torch's choice."""

    @classmethod
    def of(cls, job: JobSpec, placement: Placement) -> ReplicaConfig:
        """As a run of the job places it."""
        return cls(
            checkpoint=job.checkpoint,
            engine=job.engine,
            expert_ranks=placement.expert_ranks,
            num_cpu_threads=None if placement.label_num_gpus else placement.label_num_threads,
        )

    def load(self) -> Engine | RankedEngine:
        # Imported by the worker alone: a driver, which hands this class to it, need not have torch in memory.
        import torch

        from model.engine import Engine, EngineConfig

        if self.num_cpu_threads is not None:
            torch.set_num_threads(self.num_cpu_threads)
        device = resolve_device(self.engine.device)
        config = EngineConfig(
            max_num_sequences=self.engine.max_num_sequences,
            prefill_chunk_tokens=self.engine.prefill_chunk_tokens,
            expert_ranks=self.expert_ranks,
        )
        dtype = resolve_dtype(self.engine.dtype, device)
        return Engine.load(self.checkpoint, device=device, dtype=dtype, config=config)


def resolve_device(device: Literal["auto", "cpu", "cuda"]) -> str:
    """Raises ValueError where a GPU is demanded and there is none."""
    import torch

    if device == "cuda" and not torch.cuda.is_available():
        raise ValueError("engine.device is cuda, but no CUDA device is visible here: use auto or cpu")
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return device


def resolve_dtype(dtype: Literal["auto", "float32", "bfloat16"], device: str) -> torch.dtype:
    import torch

    if dtype == "auto":
        return torch.bfloat16 if device == "cuda" else torch.float32
    return torch.bfloat16 if dtype == "bfloat16" else torch.float32


class LabelImage:
    """{row, carried, tiles} -> {row, carried, engine}: every pending recipe of every row, or that row's reason why not.

    Async, so that several blocks are in the engine at once and its batch never drains between them. After a death of
    the worker the rows that were in its hands are alone in the engine, one after another (see `pipeline.in_hand`).
    """

    def __init__(
        self,
        *,
        replica: ReplicaConfig,
        recipes: Sequence[Recipe],
        in_hand: InHand | None = None,
        deaths: WorkerDeaths | None = None,
    ) -> None:
        """in_hand, deaths: None where a worker's death is its caller's affair."""
        self._recipes = tuple(recipes)
        self._in_hand, self._deaths = in_hand, deaths
        if deaths is not None:
            deaths.start()
        self._engine_use = SharedUse()
        self._engine_work = EngineWork()
        self._load_error: ValueError | None = None
        try:
            self._engine = replica.load()
        except RuntimeError as error:
            self._end_with_engine(error)
            raise
        except ValueError as error:
            # Raised by the first call instead: Ray answers a constructor's error with retries and a page of traces.
            self._load_error = error

    async def __call__(self, block: Mapping[str, Any]) -> AsyncIterator[dict[str, list[Any]]]:
        rows, tiles = rows_of(block), list(block[TILES_COLUMN])
        async with self._block_in_hand(rows) as one_by_one:
            if one_by_one:
                labelled = [await self._label_alone(row, of_row) for row, of_row in zip(rows, tiles, strict=True)]
            else:
                async with self._engine_use.shared():
                    labelled = await asyncio.gather(*map(self.label, rows, tiles))
        did = self._engine_work.since_last(await asyncio.to_thread(self.stats))
        yield to_columns(labelled, **{ENGINE_COLUMN: [json.dumps(did)] * len(labelled)})

    def _block_in_hand(self, rows: Sequence[ImageRow]) -> AbstractAsyncContextManager[bool]:
        if self._in_hand is None:
            return contextlib.nullcontext(False)
        return _in_a_thread(self._in_hand.block(rows))

    async def _label_alone(self, row: ImageRow, tiles: np.ndarray) -> ImageRow:
        assert self._in_hand is not None
        async with self._engine_use.exclusive():
            async with _in_a_thread(self._in_hand.alone(row)) as reason:
                return await self.label(row, tiles) if reason is None else row.failed(reason)

    async def label(
        self,
        row: ImageRow,
        tiles: np.ndarray,
        *,
        recipes: Sequence[Recipe] | None = None,
        watch: Watch | None = None,
    ) -> ImageRow:
        """One sample with all its pending recipes, which are looked up among the stage's own or those given.

        Cancelled, it takes what it has asked for out of the engine.

        Raises ValueError for a checkpoint that did not load; and EngineDiedError, where nobody starts this process
        anew, for an engine that has lost one of its ranks.
        """
        if self._load_error is not None:
            raise self._load_error
        if row.error is not None:
            return row
        try:
            async with OpenViews(self._engine, row, tiles) as views:
                return await self._run_recipes(row, views, self._recipes if recipes is None else recipes, watch)
        except Exception as error:  # noqa: BLE001 - one row's failure is that row's error, whatever it was
            return row.failed(self._row_error(error))

    def stats(self) -> EngineStats:
        """Of the engine. Raises ValueError for a checkpoint that did not load, and EngineDiedError as `label` does."""
        if self._load_error is not None:
            raise self._load_error
        try:
            return self._engine.stats()
        except RuntimeError as error:
            self._end_with_engine(error)
            raise

    def close(self) -> None:
        if self._load_error is None:
            self._engine.close()

    async def _run_recipes(
        self, row: ImageRow, views: OpenViews, recipes: Sequence[Recipe], watch: Watch | None
    ) -> ImageRow:
        """Recipes in turn (they stand in the order of their needs); one that fails takes those that need it along.

        What a gate rejected is no failure to those: they go on without its text.
        """
        done: dict[str, Sequence[Label]] = {}
        failed: dict[str, RowError] = {}
        needed = _needed_by(row.recipes, recipes)
        for recipe in recipes:
            if recipe.name not in needed:
                continue
            broken = next((name for name in recipe.needs.values() if _is_broken(failed.get(name))), None)
            if broken is not None:
                failed[recipe.name] = dataclasses.replace(
                    failed[broken], message=f"the recipe {broken}, which it reads, failed: {failed[broken].message}"
                )
                continue
            try:
                done[recipe.name] = await recipe.label(views, row, done, watch)
            except Exception as error:  # noqa: BLE001 - the other recipes of the sample go on
                failed[recipe.name] = self._row_error(error)
        return dataclasses.replace(
            row,
            labels=tuple(label for name, labels in done.items() if name in row.recipes for label in labels),
            recipe_errors=tuple((name, error) for name, error in failed.items() if name in row.recipes),
        )

    def _row_error(self, error: Exception) -> RowError:
        from model.engine import ContextTooLongError

        if isinstance(error, RejectedAnswerError):
            return error.error
        self._end_with_engine(error)
        kind = ErrorKind.CONTEXT_TOO_LONG if isinstance(error, ContextTooLongError) else ErrorKind.ENGINE_ERROR
        text = str(error).strip() or type(error).__name__
        if kind is ErrorKind.ENGINE_ERROR:
            text = f"{type(error).__name__}: {text}"
        return RowError(kind=kind, message=text.splitlines()[0])

    def _end_with_engine(self, error: Exception) -> None:
        """Where the engine has lost a rank, which is no row's fault, this process ends: Ray starts the worker anew with
        a new engine, and gives it the same rows. Where nobody would, the error is raised."""
        from model.engine import EngineDiedError

        if isinstance(error, EngineDiedError):
            if self._in_hand is None:
                raise error
            print(f"labelmill: {error}: this worker ends", file=sys.stderr, flush=True)
            if self._deaths is not None:
                self._deaths.end_because_of(str(error))
            os._exit(1)


def _needed_by(pending: Sequence[str], recipes: Sequence[Recipe]) -> set[str]:
    """The pending recipes and those whose labels they read, which an earlier run may have committed already."""
    needed = set(pending)
    for recipe in reversed(recipes):
        if recipe.name in needed:
            needed |= set(recipe.needs.values())
    return needed


_Value = TypeVar("_Value")


@contextlib.asynccontextmanager
async def _in_a_thread(manager: AbstractContextManager[_Value]) -> AsyncIterator[_Value]:
    """Entered and left in a thread: the store that it asks must not hold up the blocks beside this one."""
    value = await asyncio.to_thread(manager.__enter__)
    try:
        yield value
    finally:
        await asyncio.to_thread(manager.__exit__, *sys.exc_info())


class SharedUse:
    """Many at once, or one alone. Who wants to be alone waits for those before, and lets nobody in after itself."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._num_shared = 0
        self._empty = asyncio.Event()
        self._empty.set()

    @contextlib.asynccontextmanager
    async def shared(self) -> AsyncIterator[None]:
        async with self._turn:
            self._num_shared += 1
            self._empty.clear()
        try:
            yield
        finally:
            self._num_shared -= 1
            if self._num_shared == 0:
                self._empty.set()

    @contextlib.asynccontextmanager
    async def exclusive(self) -> AsyncIterator[None]:
        async with self._turn:
            await self._empty.wait()
            yield


def _is_broken(error: RowError | None) -> bool:
    return error is not None and error.kind is not ErrorKind.ANSWER_REJECTED
