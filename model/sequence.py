"""One request inside the engine: what was asked, how far it is, and what came out.

Knows nothing of other sequences. Shapes: T prompt tokens, D language width.
"""

import contextlib
import math
from collections.abc import Collection
from collections.abc import Sequence as Seq
from concurrent.futures import Future, InvalidStateError
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import Tensor

from model.prompt import ImageInput, Message, Prompt

FinishReason = Literal["stop", "length"]


@dataclass(frozen=True, kw_only=True)
class SamplingParams:
    """How tokens are chosen. Temperature 0 is greedy; `seed` makes sampling repeatable in whatever batch it runs."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    top_p: float = 1.0
    repetition_penalty: float = 1.0
    """Divides positive and multiplies negative logits of every id of prompt and output; 1 changes nothing."""
    seed: int = 0
    ignore_eos: bool = False
    """Go on after an end of sentence, up to `max_new_tokens`: for measurements, which need outputs of known length."""

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


@dataclass(kw_only=True, eq=False)
class Sequence:
    """Mutable state of one request; the scheduler owns it."""

    prompt: Prompt
    params: SamplingParams
    image_sequence: Tensor | None = None
    """Embeddings of the prompt's images where they were encoded before (an opened view)."""
    future: Future[Completion]
    max_total_tokens: int
    """Prompt and output together, bounded by the model's context and the cache."""

    prompt_embeds_TD: Tensor | None = None
    pages: list[int] = field(default_factory=list)
    num_cached_tokens: int = 0
    output_ids: list[int] = field(default_factory=list)
    sum_logprob: float = 0.0
    generator: torch.Generator | None = None

    @property
    def num_prompt_tokens(self) -> int:
        return len(self.prompt)

    @property
    def is_prefilled(self) -> bool:
        return self.num_cached_tokens >= self.num_prompt_tokens

    def append(self, token_id: int, logprob: float, stop_token_ids: Collection[int]) -> FinishReason | None:
        """Takes one sampled token; returns why the sequence is finished, or None."""
        self.output_ids.append(token_id)
        self.sum_logprob += logprob
        if token_id in stop_token_ids and not self.params.ignore_eos:
            return "stop"
        total = self.num_prompt_tokens + len(self.output_ids)
        return (
            "length" if len(self.output_ids) >= self.params.max_new_tokens or total >= self.max_total_tokens else None
        )


def fail(future: Future[Any], error: BaseException) -> None:
    """Hands the error to whoever waits; one who cancelled in the meantime waits for nothing."""
    with contextlib.suppress(InvalidStateError):
        future.set_exception(error)
