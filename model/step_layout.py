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

GROUP_CONTEXT_TOKENS = {"cpu": 4096, "cuda": 65536}
"""Of the context that decoding sequences gather at once; a longer sequence is a group of its own. On a CPU, with 576
float32 values a token, 9 MB, which stay in its cache from the gathering to the product; on a GPU it bounds memory."""


@dataclass(frozen=True, kw_only=True)
class SequenceStep:
    """What one sequence adds in a step: tokens `start..end` of it; its cache pages cover them."""

    pages: Sequence[int]
    start: int
    end: int


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
    """

    page_table_BP: Tensor
    context_lens_B: Tensor
    host_table: np.ndarray
    host_lens: np.ndarray

    @functools.cached_property
    def groups(self) -> tuple[DecodeGroup, ...]:
        """The same for plain PyTorch: together all rows in order. Made when asked for: it is many small copies."""
        device = self.page_table_BP.device
        counts = [pages_for(int(length)) for length in self.host_lens]
        ends = _group_ends(counts, GROUP_CONTEXT_TOKENS[device.type])
        return tuple(_group(self.host_table, self.host_lens, counts, start, end, device) for start, end in ends)


@dataclass(frozen=True, kw_only=True)
class StepLayout:
    """positions_T: int64, position of each token in its own sequence; new_slots_T: int64, where each token's row is
    written, None without a cache."""

    positions_T: Tensor
    prefill: tuple[PrefillSpan, ...]
    new_slots_T: Tensor | None = None
    decode: DecodeRows | None = None

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
        pages = torch.tensor(step.pages[: pages_for(step.end)], dtype=torch.int64, device=device)
        spans.append(PrefillSpan(start=row, end=end, num_past=step.start, pages_P=pages))
        row = end
    return StepLayout(
        positions_T=torch.from_numpy(positions).to(device, non_blocking=True),
        prefill=tuple(spans),
        new_slots_T=torch.from_numpy(slots).to(device, non_blocking=True),
        decode=_decode_rows(decode, device) if decode else None,
    )


def _new_slots(step: SequenceStep) -> np.ndarray:
    """Slots of the tokens that the step adds, given its pages in order."""
    if step.end - step.start == 1:  # nearly always, so it has no arrays to make
        return np.array([step.pages[step.start // PAGE_TOKENS] * PAGE_TOKENS + step.start % PAGE_TOKENS])
    tokens = np.arange(step.start, step.end)
    return np.asarray(step.pages)[tokens // PAGE_TOKENS] * PAGE_TOKENS + tokens % PAGE_TOKENS


def _decode_rows(decode: Sequence[SequenceStep], device: torch.device) -> DecodeRows:
    lengths = np.array([step.end for step in decode], dtype=np.int32)
    counts = [pages_for(step.end) for step in decode]
    table = np.zeros((len(decode), max(counts)), dtype=np.int32)
    for row, (step, count) in enumerate(zip(decode, counts, strict=True)):
        table[row, :count] = step.pages[:count]
    return DecodeRows(
        page_table_BP=torch.from_numpy(table).to(device, non_blocking=True),
        context_lens_B=torch.from_numpy(lengths).to(device, non_blocking=True),
        host_table=table,
        host_lens=lengths,
    )


def _group_ends(counts: Sequence[int], max_context_tokens: int) -> list[tuple[int, int]]:
    """(start, end) of runs of sequences whose padded contexts stay within that many tokens."""
    ends, start, longest = [], 0, 0
    for row, count in enumerate(counts):
        longest = max(longest, count)
        if row > start and (row - start + 1) * longest * PAGE_TOKENS > max_context_tokens:
            ends.append((start, row))
            start, longest = row, count
    return [*ends, (start, len(counts))]


def _group(
    table: np.ndarray, lengths: np.ndarray, counts: Sequence[int], start: int, end: int, device: torch.device
) -> DecodeGroup:
    num_pages = max(counts[start:end])
    mask = np.arange(num_pages * PAGE_TOKENS) < lengths[start:end, None]
    pages = torch.from_numpy(table[start:end, :num_pages].astype(np.int64))
    return DecodeGroup(start=start, end=end, pages_BP=pages.to(device), mask_BS=torch.from_numpy(mask).to(device))
