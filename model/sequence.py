"""One request inside the engine: what was asked, how far it is, and what came out.

Knows nothing of pages but which it holds. Shapes: T prompt tokens, D language width.
"""

import contextlib
import math
from abc import ABC, abstractmethod
from collections.abc import Collection
from collections.abc import Sequence as Seq
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from model.constraint_specs import ConstraintSpec
from model.constraints import Constraint
from model.loops import LoopStop
from model.prompt import ImageInput, Message, Prompt
from model.text_stream import TextStream

FinishReason = Literal["stop", "length", "loop"]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen. Temperature 0 is greedy; `seed` makes sampling repeatable in whatever batch it runs."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of every id of prompt and output; 1 changes nothing."""
    seed: int = 0
    constraint: ConstraintSpec | None = None
    """The form that the answer must have; its tokens are chosen among those that keep to it."""
    ignore_eos: bool = False
    """Goes on after an end of sentence, until `max_new_tokens`: for measurements."""
    stop_on_loop: LoopStop | None = None
    """When an answer ends because it goes round in circles; it keeps the tokens so far. Nothing is stopped under a
    constraint, whose form ends by itself."""

    def __post_init__(self) -> None:
        for ok, name, wanted in (
            (
                isinstance(self.max_new_tokens, int) and self.max_new_tokens >= 1,
                "max_new_tokens",
                "an integer of at least 1",
            ),
            (0 <= self.temperature < math.inf, "temperature", "0 (greedy) or more"),
            (0 < self.top_p <= 1, "top_p", "over 0 and at most 1"),
            (0 < self.repetition_penalty < math.inf, "repetition_penalty", "over 0"),
            (isinstance(self.seed, int) and 0 <= self.seed < 2**64, "seed", "an integer of 64 bits, not negative"),
        ):
            if not ok:
                raise ValueError(f"{name} is {getattr(self, name)}, but must be {wanted}")


@dataclass(frozen=True, kw_only=True)
class Request(SamplingParams):
    """A conversation to continue; `messages` and `images` as for `Processor.encode`."""

    messages: Seq[Message]
    images: Seq[ImageInput] = ()


@dataclass(frozen=True, kw_only=True)
class Completion:
    """token_ids end with the end-of-sentence id where `finish_reason` is "stop"; `text` leaves that one out.

    mean_logprob: mean natural log-probability of the output tokens under the model (temperature 1, no penalty).
    """

    token_ids: list[int]
    text: str
    finish_reason: FinishReason
    mean_logprob: float
    num_prompt_tokens: int

    @property
    def num_output_tokens(self) -> int:
        return len(self.token_ids)


class ContextTooLongError(ValueError):
    """The prompt leaves no room for a single output token."""


class TokenRun(ABC):
    """Tokens whose rows go into the cache chunk by chunk; the scheduler owns its pages.

    `image_sequence`: embeddings [image positions, D] of its images, None until they are encoded.
    """

    image_sequence: Tensor | None
    pages: list[int]
    num_cached_tokens: int

    @property
    @abstractmethod
    def input_ids(self) -> np.ndarray:
        """int64 [T]; what stands at image positions is replaced."""

    @property
    @abstractmethod
    def image_mask(self) -> np.ndarray:
        """bool [T]"""

    @property
    def num_tokens(self) -> int:
        """All that is to be cached before the next token can be sampled."""
        return len(self.input_ids)

    @property
    def num_missing_tokens(self) -> int:
        return self.num_tokens - self.num_cached_tokens

    def ids(self, start: int, end: int) -> np.ndarray:
        """Token ids start..end, 0 at image positions: `<image>` may lie past the vocabulary."""
        return np.where(self.image_mask[start:end], 0, self.input_ids[start:end])

    def images(self, start: int, end: int) -> tuple[np.ndarray, Tensor] | None:
        """(which of the tokens start..end are images', their embeddings); None where none is."""
        mask = self.image_mask[start:end]
        if not mask.any():
            return None
        assert self.image_sequence is not None
        first = int(self.image_mask[:start].sum())
        return mask, self.image_sequence[first : first + int(mask.sum())]


@dataclass(kw_only=True, eq=False)
class ImagePrefix(TokenRun):
    """The beginning that all prompts about one opened view share: everything up to its last image token.

    Cached when the first of them is admitted, and shared by all from then on. While no running sequence uses it, its
    pages may be taken for others; it is computed again when it is wanted again.
    """

    prompt: Prompt
    image_sequence: Tensor | None
    is_open: bool = True
    num_users: int = 0
    """Running sequences that hold its pages."""

    pages: list[int] = field(default_factory=list)
    num_cached_tokens: int = 0

    def __post_init__(self) -> None:
        self._length = 1 + int(np.flatnonzero(self.prompt.image_mask)[-1])

    @property
    def input_ids(self) -> np.ndarray:
        return self.prompt.input_ids[: self._length]

    @property
    def image_mask(self) -> np.ndarray:
        return self.prompt.image_mask[: self._length]

    @property
    def is_cached(self) -> bool:
        return self.num_missing_tokens == 0

    def begins(self, prompt: Prompt) -> bool:
        return np.array_equal(self.input_ids, prompt.input_ids[: self._length])


@dataclass(kw_only=True, eq=False)
class Sequence(TokenRun):
    """Mutable state of one request; the scheduler owns it."""

    prompt: Prompt
    params: SamplingParams
    image_sequence: Tensor | None = None
    prefix: ImagePrefix | None = None
    """Shared with other prompts about the same view."""
    future: Future[Completion]
    max_total_tokens: int
    """Prompt and output together, bounded by the model's context and the cache."""

    pages: list[int] = field(default_factory=list)
    num_cached_tokens: int = 0
    output_ids: list[int] = field(default_factory=list)
    sum_logprob: float = 0.0
    generator: torch.Generator | None = None
    constraint: Constraint | None = None
    """How far the answer is in the form that `params.constraint` asks for."""
    stream: TextStream | None = None
    """Tells the text while it grows; None: nobody listens."""
    num_overtaken: int = 0
    """Sequences that came later and were admitted before it."""

    @property
    def input_ids(self) -> np.ndarray:
        return self.prompt.input_ids

    @property
    def image_mask(self) -> np.ndarray:
        return self.prompt.image_mask

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt)

    @property
    def num_tokens(self) -> int:
        return self.num_prompt_tokens + len(self.output_ids)

    @property
    def is_decoding(self) -> bool:
        """Whether its last token alone is missing; a sequence that was preempted computes its outputs again first."""
        return bool(self.output_ids) and self.num_missing_tokens == 1

    def ids(self, start: int, end: int) -> np.ndarray:
        length = self.num_prompt_tokens
        outputs = np.array(self.output_ids[max(0, start - length) : max(0, end - length)], dtype=np.int64)
        return outputs if start >= length else np.concatenate([super().ids(start, end), outputs])

    def append(self, token_id: int, logprob: float, stop_token_ids: Collection[int]) -> FinishReason | None:
        """Takes one sampled token; returns why the sequence is finished, or None."""
        self.output_ids.append(token_id)
        self.sum_logprob += logprob
        if self.stream is not None:
            self.stream.add(token_id)
        if self.constraint is not None:
            self.constraint.advance(token_id)
        if token_id in stop_token_ids and not self.params.ignore_eos:
            return "stop"
        is_full = len(self.output_ids) >= self.params.max_new_tokens or self.num_tokens >= self.max_total_tokens
        if self._loops(is_full):
            return "loop"
        return "length" if is_full else None

    def _loops(self, is_full: bool) -> bool:
        stop = self.params.stop_on_loop
        if stop is None or self.constraint is not None or not (is_full or stop.is_due(len(self.output_ids))):
            return False
        return stop.period_of_tail(self.output_ids) is not None


def deliver(future: Future[Any], result: object) -> None:
    """Hands the result to whoever waits, unless cancelled in the meantime."""
    with contextlib.suppress(InvalidStateError):
        future.set_result(result)


def fail(future: Future[Any], error: BaseException) -> None:
    """Hands the error to whoever waits; one who cancelled in the meantime waits for nothing."""
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)
