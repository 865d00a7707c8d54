"""Where the keys and values of running sequences lie, and which of them one step reads and writes.

One row per token and layer: with MLA the normalised kv latent followed by its rotated key (kv_lora_rank +
qk_rope_head_dim wide), with MHA all keys followed by all values. Rows are handed out in pages of `PAGE_TOKENS`.
Knows nothing of requests. Shapes: T tokens of a step, B decoding sequences, S context tokens, W row width.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import LanguageConfig

PAGE_TOKENS = 16


def kv_row_width(config: LanguageConfig) -> int:
    if config.use_mla:
        return config.kv_lora_rank + config.qk_rope_head_dim
    return 2 * config.num_key_value_heads * config.head_dim


class PagedKVCache:
    """Rows of all layers, and the free list of their pages. Page tables belong to the sequences."""

    def __init__(self, config: LanguageConfig, *, num_pages: int, dtype: torch.dtype, device: torch.device) -> None:
        shape = (num_pages * PAGE_TOKENS, kv_row_width(config))
        self._rows = [torch.zeros(shape, dtype=dtype, device=device) for _ in range(config.num_hidden_layers)]
        self._free = list(range(num_pages - 1, -1, -1))
        self.num_pages = num_pages

    @property
    def num_free_pages(self) -> int:
        return len(self._free)

    def allocate(self, num_pages: int) -> list[int]:
        """Takes pages off the free list; the caller has checked `num_free_pages`."""
        assert num_pages <= len(self._free), f"{num_pages} pages asked, {len(self._free)} free"
        return [self._free.pop() for _ in range(num_pages)]

    def release(self, pages: Sequence[int]) -> None:
        self._free.extend(pages)

    def layer(self, index: int) -> "LayerCache":
        return LayerCache(self._rows[index])


@dataclass(frozen=True)
class LayerCache:
    """One layer's rows [num_slots, W]."""

    rows: Tensor

    def write(self, slots_T: Tensor, rows_TW: Tensor) -> None:
        self.rows[slots_T] = rows_TW

    def read(self, slots: Tensor) -> Tensor:
        """Rows of the given slots; int64 [...] -> [..., W]."""
        return self.rows[slots]


def pages_for(num_tokens: int) -> int:
    return -(-num_tokens // PAGE_TOKENS)


def slots_of(pages: Sequence[int], start: int, end: int) -> Tensor:
    """Slots (int64, CPU) of a sequence's tokens start..end, given its pages in order."""
    tokens = torch.arange(start, end)
    return torch.tensor(pages, dtype=torch.int64)[tokens // PAGE_TOKENS] * PAGE_TOKENS + tokens % PAGE_TOKENS


@dataclass(frozen=True, kw_only=True)
class PrefillSpan:
    """Consecutive new tokens of one sequence, at rows start..end of the step."""

    start: int
    end: int
    context_slots_S: Tensor | None
    """Slots of the whole context, these tokens included; None without a cache (the tokens are the context)."""


@dataclass(frozen=True, kw_only=True)
class StepLayout:
    """How the T tokens of one forward pass are packed: first the prefill spans, then one token per decoding sequence.

    positions_T: position of each token in its own sequence; padding does not exist.
    new_slots_T: where each token's row is written; None without a cache.
    decode_slots_BS, decode_mask_BS: context of each decoding sequence, padded with slot 0 where the mask is False.
    """

    positions_T: Tensor
    prefill: tuple[PrefillSpan, ...]
    new_slots_T: Tensor | None = None
    decode_slots_BS: Tensor | None = None
    decode_mask_BS: Tensor | None = None

    @property
    def num_prefill_tokens(self) -> int:
        return self.prefill[-1].end if self.prefill else 0

    @classmethod
    def whole_sequence(cls, num_tokens: int, device: torch.device) -> "StepLayout":
        """One sequence from its beginning, without a cache."""
        span = PrefillSpan(start=0, end=num_tokens, context_slots_S=None)
        return cls(positions_T=torch.arange(num_tokens, device=device), prefill=(span,))


@dataclass(frozen=True, kw_only=True)
class SequenceStep:
    """What one sequence adds in a step: tokens `start..end` of it; its cache pages cover them."""

    pages: Sequence[int]
    start: int
    end: int


def pack_step(prefill: Sequence[SequenceStep], decode: Sequence[SequenceStep], device: torch.device) -> StepLayout:
    """The layout of a step in which `prefill` sequences add several tokens each and `decode` sequences one each."""
    spans, row = [], 0
    for step in prefill:
        context = slots_of(step.pages, 0, step.end).to(device)
        spans.append(PrefillSpan(start=row, end=row + step.end - step.start, context_slots_S=context))
        row += step.end - step.start
    steps = [*prefill, *decode]
    decode_slots_BS, decode_mask_BS = _decode_context(decode)
    return StepLayout(
        positions_T=torch.cat([torch.arange(step.start, step.end) for step in steps]).to(device),
        prefill=tuple(spans),
        new_slots_T=torch.cat([slots_of(step.pages, step.start, step.end) for step in steps]).to(device),
        decode_slots_BS=decode_slots_BS.to(device) if decode else None,
        decode_mask_BS=decode_mask_BS.to(device) if decode else None,
    )


def _decode_context(decode: Sequence[SequenceStep]) -> tuple[Tensor, Tensor]:
    """Slots of each sequence's context, padded to the longest, and which of them are real (CPU)."""
    longest = max((step.end for step in decode), default=0)
    slots_BS = torch.zeros((len(decode), longest), dtype=torch.int64)
    for index, step in enumerate(decode):
        slots_BS[index, : step.end] = slots_of(step.pages, 0, step.end)
    ends_B = torch.tensor([step.end for step in decode], dtype=torch.int64)
    return slots_BS, torch.arange(longest) < ends_B[:, None]
