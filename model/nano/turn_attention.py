"""Attention of packed turns: each sees the tokens that all turns of its image share, and itself causally; none another.

One product over the whole sequence of an image would spend most of itself on pairs that do not see each other. Here
rows go in blocks, each with the keys that any of its rows sees, and gradients are added up where they belong, without
a copy of whole tensors per block. Shapes: T tokens of the batch, H heads, Q and V widths of keys and values, R rows and
K keys of a block.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

BLOCK_ROWS, KEY_STEP = 128, 32
"""Few lengths of keys let a CPU's library keep the code that it makes for each shape."""


@dataclass(frozen=True, kw_only=True)
class Block:
    """Rows that attend together. keys: the parts of the batch that they see; sees_RK: bool, within those."""

    rows: slice
    keys: tuple[slice, ...]
    sees_RK: Tensor

    def gather(self, x_HTX: Tensor) -> Tensor:
        """[H, K, X]"""
        parts = [x_HTX[:, part] for part in self.keys]
        return parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)

    def add_to(self, total_HTX: Tensor, of_keys_HKX: Tensor) -> None:
        done = 0
        for part in self.keys:
            length = part.stop - part.start
            total_HTX[:, part] += of_keys_HKX[:, done : done + length]
            done += length


def make_blocks(start: int, num_shared: int, turn_lengths: Sequence[int]) -> list[Block]:
    """Of one image's tokens, which begin at row `start`: the shared ones, then turn after turn."""
    turns_start = start + num_shared
    end = turns_start + sum(turn_lengths)
    of_turn_S = torch.repeat_interleave(torch.tensor([num_shared, *turn_lengths]))
    turn_start_S = start + torch.tensor([0, num_shared, *turn_lengths]).cumsum(0)[of_turn_S]
    edges = [*range(start, turns_start, BLOCK_ROWS), *range(turns_start, end, BLOCK_ROWS), end]
    blocks = []
    for first, last in itertools.pairwise(edges):
        rows_R, turn_start_R = torch.arange(first, last), turn_start_S[first - start : last - start]
        own_length = -(-(last - int(turn_start_R[0])) // KEY_STEP) * KEY_STEP
        own_start = max(last - own_length, turns_start) if first >= turns_start else start
        keys = (slice(start, turns_start), slice(own_start, last)) if own_start > turns_start else (slice(start, last),)
        keys_K = torch.cat([torch.arange(part.start, part.stop) for part in keys])
        is_own_RK = (keys_K >= turn_start_R[:, None]) & (keys_K <= rows_R[:, None])
        is_shared_RK = (keys_K < turns_start) & (rows_R >= turns_start)[:, None]
        blocks.append(Block(rows=slice(first, last), keys=keys, sees_RK=is_own_RK | is_shared_RK))
    return blocks


def make_masks(blocks: Sequence[Block], dtype: torch.dtype, device: torch.device) -> list[Tensor]:
    """Per block [R, K]: what to add to the scores, 0 or -inf."""
    masks = [torch.zeros(block.sees_RK.shape, dtype=dtype).masked_fill_(~block.sees_RK, -torch.inf) for block in blocks]
    return [mask_RK.to(device) for mask_RK in masks]


def attend(
    q_THQ: Tensor, k_THQ: Tensor, v_THV: Tensor, blocks: Sequence[Block], masks: Sequence[Tensor], scale: float
) -> Tensor:
    """[T, H, V]; every row of the batch must be in a block."""
    q_HTQ, k_HTQ, v_HTV = (x.transpose(0, 1).contiguous() for x in (q_THQ, k_THQ, v_THV))
    return _Attend.apply(q_HTQ, k_HTQ, v_HTV, blocks, masks, scale).transpose(0, 1)


class _Attend(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        q_HTQ: Tensor,
        k_HTQ: Tensor,
        v_HTV: Tensor,
        blocks: Sequence[Block],
        masks: Sequence[Tensor],
        scale: float,
    ) -> Tensor:
        attended_HTV = torch.empty_like(v_HTV)
        weights = []
        for block, mask_RK in zip(blocks, masks, strict=True):
            keys_HQK = block.gather(k_HTQ).transpose(1, 2)
            # Every token sees itself, so no row is empty, and the guards of the library's own softmax are not needed.
            weights_HRK = torch.baddbmm(mask_RK, q_HTQ[:, block.rows], keys_HQK, alpha=scale).softmax(dim=-1)
            attended_HTV[:, block.rows] = torch.bmm(weights_HRK, block.gather(v_HTV))
            weights.append(weights_HRK)
        ctx.save_for_backward(q_HTQ, k_HTQ, v_HTV, *weights)
        ctx.blocks, ctx.scale = blocks, scale
        return attended_HTV

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (d_attended_HTV,) = gradients
        d_attended_HTV = d_attended_HTV.contiguous()
        q_HTQ, k_HTQ, v_HTV, *weights = ctx.saved_tensors
        dq_HTQ, dk_HTQ, dv_HTV = torch.empty_like(q_HTQ), torch.zeros_like(k_HTQ), torch.zeros_like(v_HTV)
        for block, weights_HRK in zip(ctx.blocks, weights, strict=True):
            d_out_HRV = d_attended_HTV[:, block.rows]
            block.add_to(dv_HTV, torch.bmm(weights_HRK.transpose(1, 2), d_out_HRV))
            d_weights_HRK = torch.bmm(d_out_HRV, block.gather(v_HTV).transpose(1, 2))
            d_scores_HRK = torch._softmax_backward_data(d_weights_HRK, weights_HRK, -1, weights_HRK.dtype)
            dq_HTQ[:, block.rows] = torch.bmm(d_scores_HRK, block.gather(k_HTQ)).mul_(ctx.scale)
            block.add_to(dk_HTQ, torch.bmm(d_scores_HRK.transpose(1, 2), q_HTQ[:, block.rows]).mul_(ctx.scale))
        return dq_HTQ, dk_HTQ, dv_HTV, None, None, None
