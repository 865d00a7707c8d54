"""Attention over a context that comes in blocks: each block's result, merged by the weights' log-sum-exp.

So that a long context is never expanded as a whole (online softmax, arXiv 1805.02867). Shapes: H heads, T queries, S
context tokens of a block, G kv heads (each serves H / G query heads), Q query width, V value width.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


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


def float_products(left: Tensor, right: Tensor) -> Tensor:
    """float32 [B, T, S] = [B, T, Q] @ [B, Q, S]: scores are never rounded to bfloat16, which has no room for them."""
    if left.is_cuda and left.dtype != torch.float32:
        return torch.bmm(left, right, out_dtype=torch.float32)
    return torch.bmm(left.float(), right.float())
