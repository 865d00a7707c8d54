"""One rank of a replica: a process with an engine that holds a share of the experts, driven over a socket.

Started as `python -m model.rank_process FD` by `model.rank_handle`. It ends when it is told to, when the socket closes
(its engine is gone), and at once when a step fails: the other ranks wait in the same exchange, and none of them can
go on without it.
"""

import asyncio
import contextlib
import os
import sys
import threading
import traceback
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from model import checkpoint
from model.engine import Engine, EngineConfig, ImageView
from model.parallel import RankGroup
from model.prompt import Processor
from model.rank_messages import (
    Answer,
    Ask,
    AskStats,
    Cancel,
    CloseView,
    GaveUp,
    OpenView,
    Piece,
    RankSettings,
    RankStats,
    Ready,
    Reply,
    Stop,
)
from model.text_stream import OnText

EXIT_STEP_FAILED = 70
_MAX_REASON_CHARS = 200
_LAST_WORD_S = 2.0


class Rank:
    """Answers requests on an event loop; every request is a task, so that one may wait while others run."""

    def __init__(self, engine: Engine, group: RankGroup, outbox: "Outbox") -> None:
        self._engine, self._group, self._outbox = engine, group, outbox
        self._views: dict[int, ImageView] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def serve(self) -> None:
        loop, stopped = asyncio.get_running_loop(), asyncio.Event()

        def receive() -> None:
            while True:
                try:
                    message = self._outbox.connection.recv()
                except (EOFError, OSError):
                    os._exit(0)  # nobody is left who would read an answer, and the loop may be in the middle of a step
                if isinstance(message, Stop):
                    loop.call_soon_threadsafe(stopped.set)
                    return
                loop.call_soon_threadsafe(self._begin, message)

        threading.Thread(target=receive, name="rank-requests", daemon=True).start()
        await stopped.wait()

    def _begin(self, message: Any) -> None:
        if isinstance(message, Cancel):
            if (task := self._tasks.get(message.request)) is not None:
                task.cancel()
            return
        task = asyncio.get_running_loop().create_task(self._answer(message))
        self._tasks[message.number] = task
        task.add_done_callback(lambda _: self._tasks.pop(message.number, None))

    async def _answer(self, message: Any) -> None:
        reply = Reply(number=message.number)
        try:
            reply = Reply(number=message.number, result=await self._result(message))
        except asyncio.CancelledError:
            reply = Reply(number=message.number, error=RuntimeError("the request was cancelled"))
            raise
        except Exception as error:  # noqa: BLE001 - whoever asked is told
            reply = Reply(number=message.number, error=error)
        finally:
            self._outbox.send(reply)

    async def _result(self, message: Any) -> Any:
        if isinstance(message, OpenView):
            self._views[message.number] = await self._engine.open(message.images).__aenter__()
        elif isinstance(message, CloseView):
            if (view := self._views.pop(message.view, None)) is not None:
                await view.__aexit__(None, None, None)
        elif isinstance(message, Ask):
            view = self._views[message.view]
            ask: Any = view.generate if message.how == "generate" else view.chat
            return await ask(message.content, on_text=self._on_text(message), **message.params)
        elif isinstance(message, Answer):
            return await asyncio.wrap_future(self._engine.submit(message.request))
        elif isinstance(message, AskStats):
            return RankStats(engine=await asyncio.to_thread(self._engine.stats), exchange=self._group.stats)
        return None

    def _on_text(self, message: Ask) -> OnText | None:
        return (lambda text: self._outbox.send(Piece(number=message.number, text=text))) if message.wants_text else None


class Outbox:
    """What several threads say through one connection."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._sending = threading.Lock()

    def send(self, message: Reply | Piece | Ready) -> None:
        with self._sending:
            self.connection.send(message)

    def send_last(self, message: GaveUp) -> None:
        """Nothing after it; nor is it sent where another message does not get through."""
        if self._sending.acquire(timeout=_LAST_WORD_S):
            with contextlib.suppress(OSError):
                self.connection.send(message)


def main() -> None:
    connection = Connection(int(sys.argv[1]))
    try:
        settings: RankSettings = connection.recv()
    except EOFError:
        return
    if settings.num_threads is not None:
        torch.set_num_threads(settings.num_threads)
    outbox = Outbox(connection)
    engine, group = _load(settings, outbox)
    try:
        asyncio.run(Rank(engine, group, outbox).serve())
    finally:
        engine.close()
        group.close()


def _load(settings: RankSettings, outbox: Outbox) -> tuple[Engine, RankGroup]:
    device = torch.device(settings.device)
    if device.type == "cuda":
        torch.cuda.set_device(device)
    try:
        folder = Path(settings.folder)
        reading = checkpoint.Reading()
        model = checkpoint.load(folder, device=device, dtype=settings.dtype, share=settings.share, reading=reading)
        processor = Processor.from_checkpoint(folder)
        group = RankGroup(settings.share, rendezvous=settings.rendezvous, device=device, timeout_s=settings.timeout_s)
        engine = Engine(
            model, processor, config=EngineConfig(**settings.engine), group=group, on_failure=partial(_give_up, outbox)
        )
    except (ValueError, RuntimeError) as error:
        outbox.send(Ready(error=f"rank {settings.share.rank}: {' '.join(str(error).split())}"))
        sys.exit(1)
    num_bytes = sum(parameter.nbytes for parameter in model.parameters())
    outbox.send(Ready(num_weight_bytes=num_bytes, num_weight_bytes_read=reading.num_bytes))
    return engine, group


def _give_up(outbox: Outbox, error: BaseException) -> None:
    traceback.print_exception(error)
    words = " ".join(str(error).split())[:_MAX_REASON_CHARS]
    outbox.send_last(GaveUp(reason=f"{type(error).__name__}: {words}"))
    with contextlib.suppress(OSError):
        sys.stderr.flush()
    os._exit(EXIT_STEP_FAILED)


if __name__ == "__main__":
    main()
