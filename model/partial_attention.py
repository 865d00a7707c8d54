"""Attention over a context that comes in blocks: each block's result, merged by the weights' log-sum-exp.

So that a long context is never expanded as a whole (online softmax, arXiv 1805.02867). A block is attended to by a
fused kernel where there is one for it, else in plain PyTorch, its twin. Shapes: H heads, T queries, S context tokens of
a block, G kv heads (each serves H / G query heads), Q query width, V value width.
"""

import functools
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_FUSED_WIDTH = 256
"""Of a query and of a value, in FlashAttention-2."""


@dataclass(frozen=True)
class PartialAttention:
    """What T queries have attended to so far: float32 sums of values [H, T, V] weighted by exp(score - peak), the sums
    of those weights and the peaks [H, T, 1]."""

    sum_HTV: Tensor
    weight_HT1: Tensor
    peak_HT1: Tensor

    @classmethod
    def of_block(
        cls, q_HTQ: Tensor, k_GSQ: Tensor, v_GSV: Tensor, *, scale: float, causal: bool = False
    ) -> "PartialAttention":
        """Attends to one block; `causal` where its tokens are the queries' own, so that the t-th sees the first t."""
        num_heads, num_queries, _ = q_HTQ.shape
        # Heads that share a kv head stand as its queries: nothing is copied per head.
        q = q_HTQ.reshape(len(k_GSQ), -1, q_HTQ.shape[-1])
        scores_HTS = float_products(q, k_GSQ.transpose(1, 2)).view(num_heads, num_queries, -1)
        if causal:
            assert num_queries == scores_HTS.shape[-1]
            hidden_TS = torch.ones(scores_HTS.shape[1:], dtype=torch.bool, device=scores_HTS.device).triu(1)
            scores_HTS.masked_fill_(hidden_TS, -torch.inf)
        peak = scores_HTS.detach().amax(dim=-1, keepdim=True)  # it cancels out, so it has no gradient
        weights_HTS = (scores_HTS - peak).mul_(scale).exp_()
        weights = weights_HTS.to(v_GSV.dtype).view(*q.shape[:2], -1)
        summed = torch.bmm(weights, v_GSV).view(num_heads, num_queries, -1)
        return cls(summed.float(), weights_HTS.sum(dim=-1, keepdim=True), peak * scale)

    def merged(self, other: "PartialAttention | None") -> "PartialAttention":
        """Both contexts' together; with None, this one."""
        if other is None:
            return self
        peak = torch.maximum(self.peak_HT1, other.peak_HT1)
        ours, theirs = (self.peak_HT1 - peak).exp(), (other.peak_HT1 - peak).exp()
        return PartialAttention(
            self.sum_HTV * ours + other.sum_HTV * theirs,
            self.weight_HT1 * ours + other.weight_HT1 * theirs,
            peak,
        )

    def result(self, dtype: torch.dtype) -> Tensor:
        """[H, T, V]"""
        return (self.sum_HTV / self.weight_HT1).to(dtype)


def attend_block(
    q_HTQ: Tensor, k_GSQ: Tensor, v_GSV: Tensor, *, scale: float, causal: bool = False
) -> PartialAttention:
    """As `PartialAttention.of_block`, by the fused kernel where it takes such a block."""
    attend = fused_partial if fused_takes(q_HTQ, k_GSQ, v_GSV, causal=causal) else PartialAttention.of_block
    return attend(q_HTQ, k_GSQ, v_GSV, scale=scale, causal=causal)


def fused_takes(q_HTQ: Tensor, k_GSQ: Tensor, v_GSV: Tensor, *, causal: bool = False) -> bool:
    """Whether `fused_partial` is to be used, where no gradient is wanted (the log-sum-exp has none): in half precision
    on a GPU from Ampere on; in float32 on a CPU for a causal block, half of which it leaves out."""
    if torch.is_grad_enabled() and any(x.requires_grad for x in (q_HTQ, k_GSQ, v_GSV)):
        return False
    if q_HTQ.device.type == "cpu":
        return causal and q_HTQ.dtype == torch.float32 and len(q_HTQ) == len(k_GSQ)
    return (
        q_HTQ.is_cuda
        and q_HTQ.dtype in (torch.bfloat16, torch.float16)
        and max(q_HTQ.shape[-1], v_GSV.shape[-1]) <= MAX_FUSED_WIDTH
        and _has_flash_attention(q_HTQ.device)
    )


@functools.cache
def _has_flash_attention(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0)


def fused_partial(
    q_HTQ: Tensor, k_GSQ: Tensor, v_GSV: Tensor, *, scale: float, causal: bool = False
) -> PartialAttention:
    """As `PartialAttention.of_block`, in one kernel that keeps no scores: the block's result stands for its sum, with
    weight 1 and the log-sum-exp as its peak. The result is rounded to the queries' dtype before blocks are merged.

    The kernel wants queries, keys and values of one width, a multiple of 8: zeros are put behind what is narrower,
    which changes neither scores nor the columns that are kept. On a CPU torch has a kernel of the same kind.
    """
    assert not causal or q_HTQ.shape[1] == k_GSQ.shape[1], "kernels differ in what causal means where lengths differ"
    width = -(-max(q_HTQ.shape[-1], v_GSV.shape[-1]) // 8) * 8
    q, k, v = (_widened(x, width)[None] for x in (q_HTQ, k_GSQ, v_GSV))
    if q.is_cuda:
        attended, lse = torch.ops.aten._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)[:2]
    else:
        attended, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(q, k, v, 0.0, causal, scale=scale)
    lse_HT1 = lse[0, ..., None]
    return PartialAttention(attended[0, ..., : v_GSV.shape[-1]].float(), torch.ones_like(lse_HT1), lse_HT1)


def _widened(x: Tensor, width: int) -> Tensor:
    return x if x.shape[-1] == width else F.pad(x, (0, width - x.shape[-1]))


def float_products(left: Tensor, right: Tensor) -> Tensor:
    """float32 [B, T, S] = [B, T, Q] @ [B, Q, S]: scores are never rounded to bfloat16, which has no room for them."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left.float(), right.float())
