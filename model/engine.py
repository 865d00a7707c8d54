"""Requests -> completions; the only door to generation: open images, generate, close.

One thread of the engine's own runs all device work, so any number of threads or coroutines may ask at once. Knows
nothing of where images come from or what their labels are for.
"""

import asyncio
import atexit
import queue
import threading
import weakref
from collections.abc import Mapping
from collections.abc import Sequence as Seq
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model import checkpoint
from model.checkpoint_files import local_folder
from model.deepseek_vl2 import DeepseekVL2
from model.prompt import ImageInput, Message, Processor, Prompt
from model.scheduler import Scheduler
from model.sequence import Completion, ContextTooLongError, Request, SamplingParams, Sequence, fail
from model.tiling import TiledImage

__all__ = ["Completion", "ContextTooLongError", "Engine", "EngineConfig", "ImageView", "Request"]

_DEFAULT_CACHE_TOKENS = 65536


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    max_num_sequences: int = 16
    """Sequences that run at once; more wait their turn."""
    prefill_chunk_tokens: int = 512
    """Prompt tokens per step: bounds activation memory and how long a step of the others is held up."""
    cache_tokens: int | None = None
    """Tokens the cache holds; None: enough for `max_num_sequences` of full context, at most 65,536."""

    def __post_init__(self) -> None:
        for name in ("max_num_sequences", "prefill_chunk_tokens", "cache_tokens"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1")


class Engine:
    """Serves one checkpoint. Close it, or use it as a context manager; closing waits for nothing that still runs.

    An engine that is dropped, or still open when the interpreter ends, is closed then.
    """

    def __init__(self, model: DeepseekVL2, processor: Processor, *, config: EngineConfig | None = None) -> None:
        config = config or EngineConfig()
        context = model.config.language.max_position_embeddings
        wanted = config.max_num_sequences * context
        cache_tokens = config.cache_tokens or max(context, min(wanted, _DEFAULT_CACHE_TOKENS))
        self.model, self.processor, self.config = model, processor, config
        self.max_context_tokens = min(context, cache_tokens)
        scheduler = Scheduler(
            model,
            processor,
            max_num_sequences=config.max_num_sequences,
            prefill_chunk_tokens=config.prefill_chunk_tokens,
            cache_tokens=cache_tokens,
        )
        self._thread = _EngineThread(scheduler)
        weakref.finalize(self, self._thread.stop).atexit = False  # the thread sees to that itself

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        config: EngineConfig | None = None,
    ) -> "Engine":
        """Loads a checkpoint ("nano", a folder, s3://bucket/prefix, a hub id) and starts serving it.

        Raises ValueError for a checkpoint that is missing, incomplete or of another architecture.
        """
        folder = local_folder(path)
        model = checkpoint.load(folder, device=device, dtype=dtype)
        return cls(model, Processor.from_checkpoint(folder), config=config)

    def generate(self, requests: Seq[Request]) -> list[Completion]:
        """Answers all requests, batched as the cache allows; completions come in the order of the requests.

        Raises ValueError for a request that cannot be encoded, ContextTooLongError for one that cannot be answered;
        nothing is run then. Raises RuntimeError on a closed engine, and whatever error a request met while it ran; the
        other requests of this call are cancelled then.
        """
        prompts = [self.processor.encode(request.messages, request.images) for request in requests]
        sequences = [self._sequence(p, request, None) for p, request in zip(prompts, requests, strict=True)]
        try:
            for sequence in sequences:
                self._thread.submit(sequence)
            return [sequence.future.result() for sequence in sequences]
        finally:
            for sequence in sequences:
                sequence.future.cancel()  # those that are done do not notice

    def open(self, images: Seq[ImageInput]) -> "ImageView":
        """`async with engine.open(images) as view`: the images are encoded once for every prompt about them."""
        return ImageView(self, images)

    def close(self) -> None:
        """Ends the engine's thread after the step it is in; what has not finished fails with RuntimeError."""
        self._thread.close()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _sequence(self, prompt: Prompt, params: SamplingParams, image_sequence: Tensor | None) -> Sequence:
        self.model.check_prompt(prompt)
        if len(prompt) >= self.max_context_tokens:
            raise ContextTooLongError(
                f"the prompt has {len(prompt)} tokens, but the context holds {self.max_context_tokens} "
                "and needs room for the answer: use a shorter text or fewer images"
            )
        return Sequence(
            prompt=prompt,
            params=params,
            image_sequence=image_sequence,
            future=Future(),
            max_total_tokens=self.max_context_tokens,
        )


@dataclass(frozen=True, kw_only=True)
class _ImageJob:
    """The images of one view, to be encoded."""

    images: Seq[TiledImage]
    future: Future[Tensor]

    def run(self, model: DeepseekVL2) -> None:
        if not self.future.set_running_or_notify_cancel():
            return
        try:
            tiles = np.concatenate([image.tiles for image in self.images])
            with torch.inference_mode():
                self.future.set_result(model.image_sequence(tiles, [image.grid for image in self.images]))
        except Exception as error:  # noqa: BLE001 - handed to whoever waits for the view
            self.future.set_exception(error)


class _EngineThread:
    """The one thread that works on the device, and its inbox.

    Only the running thread refers to the scheduler, so that an engine dropped unclosed takes its cache along.
    """

    def __init__(self, scheduler: Scheduler) -> None:
        self._inbox: queue.SimpleQueue[Sequence | _ImageJob | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._stopped = False
        self._thread = threading.Thread(target=self._run, args=(scheduler,), name="labelmill-engine", daemon=True)
        # A daemon, or the interpreter would wait for it for ever; closed before the interpreter goes down, or it could
        # be inside torch while that is taken apart.
        atexit.register(self.close)
        self._thread.start()

    def submit(self, item: Sequence | _ImageJob) -> None:
        """Raises RuntimeError once the thread was told to stop: nobody would answer."""
        with self._lock:
            if self._stopped:
                raise RuntimeError("the engine is closed")
            self._inbox.put(item)

    def stop(self) -> None:
        """Lets the thread end after the step it is in. Does not wait, so that a garbage collection may call it."""
        with self._lock:
            self._stopped = True
            self._inbox.put(None)

    def close(self) -> None:
        """Stops the thread and waits for it, except where it is called by the thread itself (a future's callback)."""
        self.stop()
        if threading.current_thread() is not self._thread:
            self._thread.join()
            atexit.unregister(self.close)

    def _run(self, scheduler: Scheduler) -> None:
        while not self._stopped:
            try:
                item = self._inbox.get(block=scheduler.is_idle)
            except queue.Empty:
                self._step(scheduler)
                continue
            if isinstance(item, Sequence):
                scheduler.add(item)
            elif item is not None:
                item.run(scheduler.model)
        self._give_up(scheduler)

    def _give_up(self, scheduler: Scheduler) -> None:
        error = RuntimeError("the engine was closed")
        scheduler.fail_all(error)
        while not self._inbox.empty():
            item = self._inbox.get()
            if item is not None:
                fail(item.future, error)

    @staticmethod
    def _step(scheduler: Scheduler) -> None:
        try:
            scheduler.step()
        except Exception as error:  # noqa: BLE001 - handed to every request that was in it; the thread lives on
            scheduler.fail_running(error)


class ImageView:
    """Images opened once, to be asked about many times, also concurrently."""

    def __init__(self, engine: Engine, images: Seq[ImageInput]) -> None:
        self._engine = engine
        self._images = engine.processor.tile(images)
        self._image_sequence: Tensor | None = None
        self._is_open = False

    async def __aenter__(self) -> "ImageView":
        if self._images:
            job = _ImageJob(images=self._images, future=Future())
            self._engine._thread.submit(job)
            self._image_sequence = await asyncio.wrap_future(job.future)
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._image_sequence, self._is_open = None, False

    async def generate(self, text: str | Seq[str | Mapping[str, Any]], **params: Any) -> Completion:
        """Asks one question about the images.

        Args:
            text: a template string, or parts as for `Processor.encode`; the images' marks are put before it.
            params: fields of `SamplingParams`, e.g. max_new_tokens, temperature, seed.

        Raises ContextTooLongError, whatever error the engine had while it ran, and RuntimeError outside of the view's
        `async with`. A cancelled call frees its cache.
        """
        if not self._is_open:
            raise RuntimeError("the view is not open: ask inside `async with engine.open(images) as view`")
        marks: list[str | Mapping[str, Any]] = [f"{self._engine.processor.config.image_token}\n"] * len(self._images)
        content = [*marks, text] if isinstance(text, str) else [*marks, *text]
        messages: list[Message] = [{"role": "user", "content": content}, {"role": "assistant", "content": ""}]
        prompt = self._engine.processor.encode(messages, self._images)
        sequence = self._engine._sequence(prompt, SamplingParams(**params), self._image_sequence)
        self._engine._thread.submit(sequence)
        return await asyncio.wrap_future(sequence.future)
