"""Tokens and their chosen experts -> tokens sorted by expert, and back.

One rank holds all experts here. Shapes: T tokens, K experts per token, N = T * K copies, D width, E experts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class Dispatched:
    """hidden_ND: a copy of each token for each of its experts, sorted by expert; offsets_E (int32): where each
    expert's run ends; order_N: which (token, choice) each copy is."""

    hidden_ND: Tensor
    offsets_E: Tensor
    order_N: Tensor


class LocalTokenDispatcher:
    """All experts on this rank: a stable sort there, a permutation back."""

    def __init__(self, num_experts: int) -> None:
        self.num_experts = num_experts

    def dispatch(self, hidden_TD: Tensor, expert_ids_TK: Tensor) -> Dispatched:
        experts_N = expert_ids_TK.flatten()
        order_N = torch.argsort(experts_N, stable=True)
        counts_E = torch.bincount(experts_N, minlength=self.num_experts)
        return Dispatched(
            hidden_ND=hidden_TD[order_N // expert_ids_TK.shape[1]],
            offsets_E=counts_E.cumsum(0).to(torch.int32),
            order_N=order_N,
        )

    def combine(self, outputs_ND: Tensor, dispatched: Dispatched, weights_TK: Tensor) -> Tensor:
        """Weighted sum over each token's experts, in float32 and in the order of its choices; returns [T, D]."""
        chosen_ND = torch.empty_like(outputs_ND)
        chosen_ND[dispatched.order_N] = outputs_ND
        chosen_TKD = chosen_ND.unflatten(0, weights_TK.shape).float()
        return (chosen_TKD * weights_TK[..., None]).sum(dim=1).to(outputs_ND.dtype)
