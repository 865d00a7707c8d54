"""Requests -> completions; the only door to generation: open images, generate, close.

One thread of the engine's own runs all device work, so any number of threads or coroutines may ask at once. Knows
nothing of where images come from or what their labels are for.
"""

import asyncio
import contextlib
import weakref
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
from model.constraints import Constraint, compile_constraint
from model.deepseek_vl2 import DeepseekVL2
from model.engine_stats import EngineStats
from model.engine_thread import ClosedView, EngineThread
from model.parallel import RankGroup
from model.prompt import ImageInput, Message, Processor, Prompt
from model.rank_handle import EngineDiedError
from model.ranked_engine import RankedEngine
from model.scheduler import Scheduler
from model.sequence import (
    Completion,
    ContextTooLongError,
    ImagePrefix,
    Request,
    SamplingParams,
    Sequence,
    deliver,
)
from model.text_stream import LoopRelay, OnText, TextStream
from model.vision_queue import VisionJob

__all__ = [
    "Completion",
    "ContextTooLongError",
    "Engine",
    "EngineConfig",
    "EngineDiedError",
    "EngineStats",
    "ImageView",
    "RankedEngine",
    "Request",
]

_DEFAULT_CACHE_TOKENS = 65536


@dataclass(frozen=True, kw_only=True)
class EngineConfig:
    max_num_sequences: int = 16
    """Sequences that run at once; more wait their turn."""
    prefill_chunk_tokens: int = 1024
    """Prompt tokens per step: bounds activation memory and how long a step of the others is held up."""
    cache_tokens: int | None = None
    """Tokens the cache holds; None: enough for `max_num_sequences` of full context, at most 65,536."""
    expert_ranks: int = 1
    """Processes that the routed experts are spread over, each on a GPU of its own where there are GPUs."""
    rank_timeout_s: float = 300.0
    """A rank that keeps the others waiting longer is given up, and the engine with it."""
    cuda_graphs: bool = True
    """Steps that only decode are held in CUDA graphs, one for each size, where the device can capture them: a GPU from
    Hopper on, in bfloat16. Elsewhere it changes nothing."""

    def __post_init__(self) -> None:
        for name in ("max_num_sequences", "prefill_chunk_tokens", "cache_tokens", "expert_ranks"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name} is {value}, but must be at least 1")


class Engine:
    """Serves one checkpoint. Close it, or use it as a context manager; closing waits for nothing that still runs.

    An engine that is dropped, or still open when the interpreter ends, is closed then.
    """

    def __init__(
        self,
        model: DeepseekVL2,
        processor: Processor,
        *,
        config: EngineConfig | None = None,
        group: RankGroup | None = None,
        on_failure: Callable[[Exception], None] | None = None,
    ) -> None:
        """group, on_failure: of an engine that is one rank of several, see `EngineThread`."""
        config = config or EngineConfig()
        if group is not None:
            model.language.partition_experts(group)
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
            cuda_graphs=config.cuda_graphs,
            has_peers=group is not None,
        )
        self._thread = EngineThread(scheduler, group=group, on_failure=on_failure)
        weakref.finalize(self, self._thread.stop).atexit = False  # the thread sees to that itself

    @classmethod
    def load(
        cls,
        path: str | Path,
        *,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        config: EngineConfig | None = None,
    ) -> "Engine | RankedEngine":
        """Loads a checkpoint ("nano", a folder, s3://bucket/prefix, a hub id) and starts serving it.

        With `config.expert_ranks` over 1 it starts that many processes, and ends them when it is closed.

        Raises ValueError for a checkpoint that is missing, incomplete or of another architecture, or GPUs that are not
        there.
        """
        folder = local_folder(path)
        if config is not None and config.expert_ranks > 1:
            return RankedEngine(folder, device=torch.device(device), dtype=dtype, config=config)
        model = checkpoint.load(folder, device=device, dtype=dtype)
        return cls(model, Processor.from_checkpoint(folder), config=config)

    def generate(self, requests: Seq[Request]) -> list[Completion]:
        """Answers all requests, batched as the cache allows; completions come in the order of the requests.

        Raises ValueError for a request that cannot be encoded, ContextTooLongError for one that cannot be answered;
        nothing is run then. Raises RuntimeError on a closed engine, and whatever error a request met while it ran; the
        other requests of this call are cancelled then.
        """
        prompts = [self.processor.encode(request.messages, request.images) for request in requests]
        sequences = [self._sequence(p, request) for p, request in zip(prompts, requests, strict=True)]
        try:
            for sequence in sequences:
                self._thread.submit(sequence)
            return [sequence.future.result() for sequence in sequences]
        finally:
            for sequence in sequences:
                sequence.future.cancel()  # those that are done do not notice

    def submit(self, request: Request) -> "Future[Completion]":
        """Begins one request. Raises as `generate` does; a future that is cancelled frees its cache."""
        sequence = self._sequence(self.processor.encode(request.messages, request.images), request)
        self._thread.submit(sequence)
        return sequence.future

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

    def stats(self) -> EngineStats:
        """What the engine did so far; may be asked from any thread."""
        return self._thread.stats()

    def _sequence(
        self,
        prompt: Prompt,
        params: SamplingParams,
        prefix: ImagePrefix | None = None,
        on_text: OnText | None = None,
    ) -> Sequence:
        self.model.check_prompt(prompt)
        if len(prompt) >= self.max_context_tokens:
            raise ContextTooLongError(
                f"the prompt has {len(prompt)} tokens, but the context holds {self.max_context_tokens} "
                "and needs room for the answer: use a shorter text or fewer images"
            )
        image_sequence = None
        if prefix is not None and prefix.image_sequence is not None and prompt.images:
            image_sequence = prefix.image_sequence[: int(prompt.image_mask.sum())]
        return Sequence(
            prompt=prompt,
            params=params,
            constraint=self._constraint(prompt, params),
            image_sequence=image_sequence,
            prefix=prefix if prefix is not None and prefix.begins(prompt) else None,
            stream=TextStream(self.processor.tokenizer, on_text) if on_text is not None else None,
            future=Future(),
            max_total_tokens=self.max_context_tokens,
        )

    def _constraint(self, prompt: Prompt, params: SamplingParams) -> Constraint | None:
        if params.constraint is None:
            return None
        return compile_constraint(
            params.constraint,
            self.processor.tokenizer,
            max_new_tokens=min(params.max_new_tokens, self.max_context_tokens - len(prompt)),
            num_logits=self.model.config.language.vocab_size,
        )


class ImageView:
    """Images opened once, to be asked about many times, also concurrently."""

    def __init__(self, engine: Engine, images: Seq[ImageInput]) -> None:
        self._engine = engine
        self._images = engine.processor.tile(images)
        self._prefix: ImagePrefix | None = None
        self._is_open = False

    async def __aenter__(self) -> "ImageView":
        if self._images:
            future: Future[Tensor] = Future()
            job = VisionJob(
                images=self._images,
                deliver=lambda image_sequence: deliver(future, image_sequence),
                future=future,
            )
            self._engine._thread.submit(job)
            image_sequence = await asyncio.wrap_future(future)
            self._prefix = ImagePrefix(prompt=self._prompt(["x"]), image_sequence=image_sequence)
        self._is_open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        prefix, self._prefix, self._is_open = self._prefix, None, False
        if prefix is not None:
            with contextlib.suppress(RuntimeError):  # the engine was closed, and its cache is gone with it
                self._engine._thread.submit(ClosedView(prefix=prefix))

    async def generate(
        self, text: str | Seq[str | Mapping[str, Any]], *, on_text: OnText | None = None, **params: Any
    ) -> Completion:
        """Asks one question about the images.

        Args:
            text: a template string, or parts as for `Processor.encode`; the images' marks are put before it.
            on_text: called on the caller's event loop with each further piece of the answer's text, all of them before
                this returns and none after it; joined they are the text. What a later token may change is held back.
            params: fields of `SamplingParams`, e.g. max_new_tokens, temperature, seed.

        Raises ContextTooLongError, ValueError for parameters or a constraint that cannot be kept to, whatever error the
        engine had while it ran, and RuntimeError outside of the view's `async with`. A cancelled call frees its cache.
        """
        self._require_open()
        prompt = self._prompt([text] if isinstance(text, str) else text)
        assert self._prefix is None or self._prefix.begins(prompt)
        return await self._answer(prompt, params, on_text)

    async def chat(self, messages: Seq[Message], *, on_text: OnText | None = None, **params: Any) -> Completion:
        """Continues a conversation about the images, which stand in it where its `{"type": "image"}` parts do.

        They are those of the view in its order, the first ones where there are fewer parts, and are not encoded again.
        A conversation that begins with all of them, as `generate` does, also shares their place in the cache.

        Args:
            messages: as for `Processor.encode`, with `image` parts and no marks in strings.
            on_text, params: as for `generate`.

        Raises what `generate` raises, and ValueError for messages that cannot be encoded.
        """
        self._require_open()
        num_images = sum(_is_image(part) for message in messages for part in message["content"])
        return await self._answer(self._engine.processor.encode(messages, self._images[:num_images]), params, on_text)

    def _require_open(self) -> None:
        if not self._is_open:
            raise RuntimeError("the view is not open: ask inside `async with engine.open(images) as view`")

    async def _answer(self, prompt: Prompt, params: Mapping[str, Any], on_text: OnText | None) -> Completion:
        relay = LoopRelay(on_text) if on_text is not None else None
        sequence = self._engine._sequence(prompt, SamplingParams(**params), self._prefix, relay)
        self._engine._thread.submit(sequence)
        try:
            return await asyncio.wrap_future(sequence.future)
        finally:
            if relay is not None:
                relay.close()

    def _prompt(self, text: Seq[str | Mapping[str, Any]]) -> Prompt:
        marks: list[str | Mapping[str, Any]] = [f"{self._engine.processor.config.image_token}\n"] * len(self._images)
        messages: list[Message] = [
            {"role": "user", "content": [*marks, *text]},
            {"role": "assistant", "content": ""},
        ]
        return self._engine.processor.encode(messages, self._images)


def _is_image(part: object) -> bool:
    return isinstance(part, Mapping) and part.get("type") == "image"
