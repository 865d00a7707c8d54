"""Requests -> completions; the only door to generation: open images, generate, close.

One thread of the engine's own runs all device work, so any number of threads or coroutines may ask at once. Knows
nothing of where images come from or what their labels are for.
"""

import asyncio
import queue
import threading
from collections.abc import Callable, Mapping
from collections.abc import Sequence as Seq
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor

from model import checkpoint
from model.checkpoint_files import local_folder
from model.deepseek_vl2 import DeepseekVL2
from model.prompt import ImageInput, Message, Processor, Prompt
from model.scheduler import Scheduler
from model.sequence import Completion, ContextTooLongError, Request, SamplingParams, Sequence
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
    """Serves one checkpoint. Close it, or use it as a context manager; closing waits for nothing that still runs."""

    def __init__(self, model: DeepseekVL2, processor: Processor, *, config: EngineConfig | None = None) -> None:
        config = config or EngineConfig()
        context = model.config.language.max_position_embeddings
        wanted = config.max_num_sequences * context
        cache_tokens = config.cache_tokens or max(context, min(wanted, _DEFAULT_CACHE_TOKENS))
        self.model, self.processor, self.config = model, processor, config
        self.max_context_tokens = min(context, cache_tokens)
        self._scheduler = Scheduler(
            model,
            processor,
            max_num_sequences=config.max_num_sequences,
            prefill_chunk_tokens=config.prefill_chunk_tokens,
            cache_tokens=cache_tokens,
        )
        self._inbox: queue.SimpleQueue[Sequence | Callable[[], None] | None] = queue.SimpleQueue()
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="labelmill-engine", daemon=True)
        self._thread.start()

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
        nothing is run then.
        """
        prompts = [self.processor.encode(request.messages, request.images) for request in requests]
        sequences = [self._sequence(p, request, None) for p, request in zip(prompts, requests, strict=True)]
        for sequence in sequences:
            self._submit(sequence)
        return [sequence.future.result() for sequence in sequences]

    def open(self, images: Seq[ImageInput]) -> "ImageView":
        """`async with engine.open(images) as view`: the images are encoded once for every prompt about them."""
        return ImageView(self, images)

    def close(self) -> None:
        """Stops the engine's thread after the step it is in; what has not finished fails with RuntimeError."""
        if not self._closed:
            self._closed = True
            self._inbox.put(None)
            self._thread.join()

    def __enter__(self) -> "Engine":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _sequence(self, prompt: Prompt, params: SamplingParams, image_sequence: Tensor | None) -> Sequence:
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

    def _submit(self, item: Sequence | Callable[[], None]) -> None:
        if self._closed:
            raise RuntimeError("the engine is closed")
        self._inbox.put(item)

    def _encode(self, images: Seq[TiledImage]) -> "Future[Tensor]":
        """Encodes the images of one view on the engine's thread."""
        future: Future[Tensor] = Future()

        def encode() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                with torch.inference_mode():
                    tiles = torch.cat([torch.from_numpy(image.tiles) for image in images])
                    future.set_result(self.model.image_sequence(tiles, tuple(image.grid for image in images)))
            except Exception as error:  # noqa: BLE001 - handed to whoever waits for the view
                future.set_exception(error)

        self._submit(encode)
        return future

    def _run(self) -> None:
        while True:
            try:
                item = self._inbox.get(block=self._scheduler.is_idle)
            except queue.Empty:
                self._step()
                continue
            if item is None:
                self._give_up()
                return
            if isinstance(item, Sequence):
                self._scheduler.add(item)
            else:
                item()

    def _give_up(self) -> None:
        """Fails what is still there, and what was submitted while the engine closed."""
        while not self._inbox.empty():
            item = self._inbox.get()
            if isinstance(item, Sequence):
                self._scheduler.add(item)
        self._scheduler.fail_all(RuntimeError("the engine was closed"))

    def _step(self) -> None:
        try:
            self._scheduler.step()
        except Exception as error:  # noqa: BLE001 - handed to every request that was running; the thread lives on
            self._scheduler.fail_all(error)


class ImageView:
    """Images opened once, to be asked about many times, also concurrently."""

    def __init__(self, engine: Engine, images: Seq[ImageInput]) -> None:
        self._engine = engine
        self._images = engine.processor.tile(images)
        self._image_sequence: Tensor | None = None

    async def __aenter__(self) -> "ImageView":
        if self._images:
            self._image_sequence = await asyncio.wrap_future(self._engine._encode(self._images))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._image_sequence = None

    async def generate(self, text: str | Seq[str | Mapping[str, Any]], **params: Any) -> Completion:
        """Asks one question about the images.

        Args:
            text: a template string, or parts as for `Processor.encode`; the images' marks are put before it.
            params: fields of `SamplingParams`, e.g. max_new_tokens, temperature, seed.

        Raises ContextTooLongError, and whatever error the engine had while it ran. A cancelled call frees its cache.
        """
        marks: list[str | Mapping[str, Any]] = [f"{self._engine.processor.config.image_token}\n"] * len(self._images)
        content = [*marks, text] if isinstance(text, str) else [*marks, *text]
        messages: list[Message] = [{"role": "user", "content": content}, {"role": "assistant", "content": ""}]
        prompt = self._engine.processor.encode(messages, self._images)
        sequence = self._engine._sequence(prompt, SamplingParams(**params), self._image_sequence)
        self._engine._submit(sequence)
        return await asyncio.wrap_future(sequence.future)
