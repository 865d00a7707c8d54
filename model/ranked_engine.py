"""An engine whose experts are spread over several processes of this machine; asked like any other engine.

It starts its ranks, gives each view to one of them, and ends them all when one of them ends. Weights and caches are in
the ranks; here are the processor and the futures of those who wait.
"""

import asyncio
import contextlib
import itertools
import os
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import asdict, replace
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import torch

from model.engine_stats import EngineStats, total
from model.expert_share import ExpertShare
from model.prompt import ImageInput, Message, Processor
from model.rank_handle import EngineDiedError, RankHandle, all_ready
from model.rank_messages import Answer, Ask, AskStats, Cancel, CloseView, OpenView, RankSettings, RankStats, Ready
from model.sequence import Completion, Request, SamplingParams
from model.text_stream import LoopRelay, OnText

if TYPE_CHECKING:
    from model.engine import EngineConfig


class RankedEngine:
    """Serves one checkpoint with `config.expert_ranks` processes. Close it, or use it as a context manager."""

    def __init__(self, folder: Path, *, device: torch.device, dtype: torch.dtype, config: "EngineConfig") -> None:
        """Raises ValueError for a checkpoint that cannot be loaded, or fewer GPUs than ranks; EngineDiedError where a
        rank ended while it started."""
        self.processor, self.config = Processor.from_checkpoint(folder), config
        self._numbers = itertools.count(1)
        self._lock = threading.Lock()
        self._reason = ""
        self._meeting = tempfile.TemporaryDirectory(prefix="labelmill-ranks-")
        told = weakref.WeakMethod(self._rank_ended)  # the readers of the sockets must not keep the engine alive

        def on_end(reason: str) -> None:
            if (tell := told()) is not None:
                tell(reason)

        self._ranks = [
            RankHandle(settings, on_end=on_end)
            for settings in _settings(folder, device, dtype, config, Path(self._meeting.name))
        ]
        self._open_views = [0] * len(self._ranks)
        self._end = weakref.finalize(self, _end, self._ranks, self._meeting)
        try:
            self.ready: list[Ready] = all_ready(self._ranks)
        except EngineDiedError:
            self._kill()
            raise
        for ready in self.ready:
            if ready.error:
                self._kill()
                raise ValueError(ready.error)

    @property
    def pids(self) -> list[int]:
        """Of the ranks."""
        return [rank.pid for rank in self._ranks]

    def generate(self, requests: Sequence[Request]) -> list[Completion]:
        """As `Engine.generate`."""
        for request in requests:  # all are looked at before any is run
            self.processor.encode(request.messages, request.images)
        asked: list[tuple[int, int, Future[Completion]]] = []
        try:
            for request in requests:
                rank, number = self._take_rank(), next(self._numbers)
                tiled = replace(request, images=self.processor.tile(request.images))
                asked.append((rank, number, self._ranks[rank].ask(Answer(number=number, request=tiled))))
            return [future.result() for *_, future in asked]
        finally:
            for rank, number, future in asked:
                self._release_rank(rank)
                if not future.done():
                    self._ranks[rank].tell(Cancel(number=next(self._numbers), request=number))

    def open(self, images: Sequence[ImageInput]) -> "RankedView":
        """As `Engine.open`."""
        return RankedView(self, images)

    def stats(self) -> EngineStats:
        """The ranks' together. Raises EngineDiedError where they are gone."""
        return total([stats.engine for stats in self.rank_stats()])

    def rank_stats(self) -> list[RankStats]:
        """Of each rank, what its engine did and what it exchanged with the others."""
        asked = [rank.ask(AskStats(number=next(self._numbers))) for rank in self._ranks]
        return [future.result() for future in asked]

    def close(self) -> None:
        """Ends the ranks; what has not finished fails with RuntimeError."""
        self._end()

    def __enter__(self) -> "RankedEngine":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _take_rank(self) -> int:
        """The rank with the fewest open views, for one more."""
        with self._lock:
            if self._reason:
                raise EngineDiedError(self._reason)
            rank = min(range(len(self._ranks)), key=lambda index: self._open_views[index])
            self._open_views[rank] += 1
            return rank

    def _release_rank(self, rank: int) -> None:
        with self._lock:
            self._open_views[rank] -= 1

    def _rank_ended(self, reason: str) -> None:
        """One has ended by itself: the others wait for it in an exchange, so they are killed."""
        with self._lock:
            if self._reason:
                return
            self._reason = f"{reason}; the engine's other ranks were ended with it"
        print(f"labelmill: {self._reason}", file=sys.stderr, flush=True)
        self._kill()

    def _kill(self) -> None:
        for rank in self._ranks:
            rank.kill()
            rank.stop(EngineDiedError(self._reason or "the engine's ranks could not start"))


class RankedView:
    """As `ImageView`; it lives in one rank."""

    def __init__(self, engine: RankedEngine, images: Sequence[ImageInput]) -> None:
        self._engine, self._images = engine, engine.processor.tile(images)
        self._rank: int | None = None
        self._number = 0

    async def __aenter__(self) -> "RankedView":
        self._rank, self._number = self._engine._take_rank(), next(self._engine._numbers)
        try:
            await self._ask(OpenView(number=self._number, images=self._images))
        except BaseException:
            await self.__aexit__(None, None, None)
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        rank, self._rank = self._rank, None
        assert rank is not None
        self._engine._ranks[rank].tell(CloseView(number=next(self._engine._numbers), view=self._number))
        self._engine._release_rank(rank)

    async def generate(self, text: str | Sequence[Any], *, on_text: OnText | None = None, **params: Any) -> Completion:
        """As `ImageView.generate`."""
        return await self._completion("generate", text, params, on_text)

    async def chat(self, messages: Sequence[Message], *, on_text: OnText | None = None, **params: Any) -> Completion:
        """As `ImageView.chat`."""
        return await self._completion("chat", messages, params, on_text)

    async def _completion(self, how: Any, content: Any, params: dict[str, Any], on_text: OnText | None) -> Completion:
        if self._rank is None:
            raise RuntimeError("the view is not open: ask inside `async with engine.open(images) as view`")
        SamplingParams(**params)
        relay = LoopRelay(on_text) if on_text is not None else None
        ask = Ask(
            number=next(self._engine._numbers),
            view=self._number,
            how=how,
            content=content,
            params=params,
            wants_text=relay is not None,
        )
        try:
            result = await self._ask(ask, relay)
        finally:
            if relay is not None:
                relay.close()
        assert isinstance(result, Completion)
        return result

    async def _ask(self, message: OpenView | Ask, on_text: OnText | None = None) -> Any:
        assert self._rank is not None
        rank = self._engine._ranks[self._rank]
        # In a thread: tiles are megabytes, and a socket may be full.
        future: Future[Any] = await asyncio.to_thread(rank.ask, message, on_text)
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            rank.tell(Cancel(number=next(self._engine._numbers), request=message.number))
            raise


def _settings(
    folder: Path, device: torch.device, dtype: torch.dtype, config: "EngineConfig", meeting: Path
) -> list[RankSettings]:
    num_ranks = config.expert_ranks
    if device.type == "cuda" and torch.cuda.device_count() < num_ranks:
        raise ValueError(f"expert_ranks is {num_ranks}, but {torch.cuda.device_count()} GPUs are visible here")
    num_threads = max(1, torch.get_num_threads() // num_ranks) if device.type == "cpu" else None
    return [
        RankSettings(
            folder=os.fspath(folder),
            device=f"cuda:{rank}" if device.type == "cuda" else str(device),
            dtype=dtype,
            engine=asdict(replace(config, expert_ranks=1, cuda_graphs=False)),
            share=ExpertShare(rank=rank, num_ranks=num_ranks),
            rendezvous=os.fspath(meeting / "meeting"),
            timeout_s=config.rank_timeout_s,
            num_threads=num_threads,
        )
        for rank in range(num_ranks)
    ]


def _end(ranks: Sequence[RankHandle], meeting: "tempfile.TemporaryDirectory[str]") -> None:
    for rank in ranks:
        rank.stop(RuntimeError("the engine was closed"))
    for rank in ranks:
        rank.join()
    with contextlib.suppress(OSError):
        meeting.cleanup()
