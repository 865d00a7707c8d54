"""Which tokens a forward pass adds to which sequences -> how they are packed, and what they read and write.

No padding exists among the tokens: first come the spans (several new tokens of one sequence each), then the rows of
sequences that add one token. Knows nothing of requests. Shapes: T tokens of a step, B sequences that add one token, P
pages of the longest of them, S context tokens.
"""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from model.kv_cache import PAGE_TOKENS, pages_for
from model.transfers import to_device

GROUP_CONTEXT_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Of the context that decoding sequences gather at once; a longer sequence is a group of its own. On a CPU, with 576
float32 values a token, 9 MB, which stay in its cache from the gathering to the product; on a GPU it bounds memory."""


@dataclass(frozen=True, kw_only=True)
class SequenceStep:
    """What one sequence adds in a step: tokens `start..end` of it; its cache pages cover them."""

    pages: Sequence[int]
    start: int
    end: int

    @property
    def first_slot(self) -> int:
        """Where the first of the tokens is written."""
        return self.pages[self.start // PAGE_TOKENS] * PAGE_TOKENS + self.start % PAGE_TOKENS


@dataclass(frozen=True, kw_only=True)
class PrefillSpan:
    """Consecutive new tokens of one sequence, at rows start..end of the step, after `num_past` cached ones.

    pages_P: int64 pages of the whole context, new tokens included; None without a cache.
    """

    start: int
    end: int
    num_past: int
    pages_P: Tensor | None

    @property
    def num_context(self) -> int:
        return self.num_past + self.end - self.start


@dataclass(frozen=True, kw_only=True)
class DecodeGroup:
    """Rows `start..end` of the step's decoding rows, whose contexts are gathered together.

    pages_BP: int64; past the context page 0, whose rows mask_BS (bool, [B, P * PAGE_TOKENS]) hides.
    """

    start: int
    end: int
    pages_BP: Tensor
    mask_BS: Tensor


@dataclass(frozen=True, kw_only=True)
class DecodeRows:
    """One new token of each of B sequences.

    page_table_BP: int32, 0 past the context; context_lens_B: int32, the new token included. What a kernel needs.
    num_pages: what the host knows of the lengths, for each row at least the pages of its context.
    """

    page_table_BP: Tensor
    context_lens_B: Tensor
    num_pages: Sequence[int]

    @functools.cached_property
    def groups(self) -> tuple[DecodeGroup, ...]:
        """The same for plain PyTorch: together all rows in order. Made when asked for, where the tensors are."""
        ends = _group_ends(self.num_pages, GROUP_CONTEXT_TOKENS[self.page_table_BP.device.type])
        return tuple(self._group(start, end) for start, end in ends)

    def _group(self, start: int, end: int) -> DecodeGroup:
        width = max(self.num_pages[start:end])
        tokens_S = torch.arange(width * PAGE_TOKENS, device=self.context_lens_B.device)
        return DecodeGroup(
            start=start,
            end=end,
            pages_BP=self.page_table_BP[start:end, :width].long(),
            mask_BS=tokens_S < self.context_lens_B[start:end, None],
        )


@dataclass(frozen=True, kw_only=True)
class StepLayout:
    """positions_T: int64, position of each token in its own sequence; new_slots_T: int64, where each token's row is
    written, None without a cache; is_token_T: bool, false for the padding of a step of fixed size, None where there is
    no padding."""

    positions_T: Tensor
    prefill: tuple[PrefillSpan, ...]
    new_slots_T: Tensor | None = None
    decode: DecodeRows | None = None
    is_token_T: Tensor | None = None

    @property
    def num_prefill_tokens(self) -> int:
        return self.prefill[-1].end if self.prefill else 0

    @classmethod
    def whole_sequence(cls, num_tokens: int, device: torch.device) -> "StepLayout":
        """One sequence from its beginning, without a cache."""
        span = PrefillSpan(start=0, end=num_tokens, num_past=0, pages_P=None)
        return cls(positions_T=torch.arange(num_tokens, device=device), prefill=(span,))


def pack_step(prefill: Sequence[SequenceStep], decode: Sequence[SequenceStep], device: torch.device) -> StepLayout:
    """The layout of a step in which `prefill` sequences add several tokens each and `decode` sequences one each.

    Decoding sequences of similar lengths should stand together (`decode` sorted by length): they are gathered together.
    """
    steps = [*prefill, *decode]
    positions = np.concatenate([np.arange(step.start, step.end) for step in steps])
    slots = np.concatenate([_new_slots(step) for step in steps])
    spans, row = [], 0
    for step in prefill:
        end = row + step.end - step.start
        pages = np.array(step.pages[: pages_for(step.end)], dtype=np.int64)
        spans.append(PrefillSpan(start=row, end=end, num_past=step.start, pages_P=to_device(pages, device)))
        row = end
    return StepLayout(
        positions_T=to_device(positions, device),
        prefill=tuple(spans),
        new_slots_T=to_device(slots, device),
        decode=_decode_rows(decode, device) if decode else None,
    )


def _new_slots(step: SequenceStep) -> np.ndarray:
    """Slots of the tokens that the step adds, given its pages in order."""
    if step.end - step.start == 1:  # nearly always, so it has no arrays to make
        return np.array([step.first_slot])
    tokens = np.arange(step.start, step.end)
    return np.asarray(step.pages)[tokens // PAGE_TOKENS] * PAGE_TOKENS + tokens % PAGE_TOKENS


def _decode_rows(decode: Sequence[SequenceStep], device: torch.device) -> DecodeRows:
    lengths = np.array([step.end for step in decode], dtype=np.int32)
    counts = [pages_for(step.end) for step in decode]
    table = np.zeros((len(decode), max(counts)), dtype=np.int32)
    write_page_table(table, decode)
    return DecodeRows(
        page_table_BP=to_device(table, device), context_lens_B=to_device(lengths, device), num_pages=counts
    )


def write_page_table(table_BP: np.ndarray, decode: Sequence[SequenceStep]) -> None:
    """Writes the pages of each step's whole context into a row of a table of zeros."""
    for row, step in enumerate(decode):
        count = pages_for(step.end)
        table_BP[row, :count] = step.pages[:count]


def _group_ends(counts: Sequence[int], max_context_tokens: int) -> list[tuple[int, int]]:
    """(start, end) of runs of sequences whose padded contexts stay within that many tokens."""
    ends, start, longest = [], 0, 0
    for row, count in enumerate(counts):
        longest = max(longest, count)
        if row > start and (row - start + 1) * longest * PAGE_TOKENS > max_context_tokens:
            ends.append((start, row))
            start, longest = row, count
    return [*ends, (start, len(counts))]
