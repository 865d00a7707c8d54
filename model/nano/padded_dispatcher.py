"""Tokens and their experts -> tokens sorted by expert, each expert's run as long as a few lengths allow.

A CPU's library makes code for each shape of a product in bfloat16 that it has not met, and keeps it; a batch of
training has new lengths for every expert, so that making the code would take longer than some of the products.
Shapes: T tokens, K experts per token, N = T * K copies, P slots for them, D width, E experts.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from model.token_dispatcher import Dispatched, LocalTokenDispatcher

RUN_STEP = 64


@dataclass(frozen=True, kw_only=True)
class PaddedDispatched(Dispatched):
    """`hidden_ND` has P rows, `offsets_E` is of those; slots_TK: where each token's copies lie. What an expert makes of
    a slot that is no copy's is read by none."""

    slots_TK: Tensor


class PaddedTokenDispatcher(LocalTokenDispatcher):
    def dispatch(self, hidden_TD: Tensor, expert_ids_TK: Tensor, is_token_T: Tensor | None = None) -> PaddedDispatched:
        assert is_token_T is None, "training pads nothing else"
        experts_N, order_N = expert_ids_TK.flatten().sort(stable=True)
        counts_E = torch.bincount(experts_N, minlength=self.num_experts)
        self._load(counts_E.device).add_(counts_E)
        padded_E = (counts_E + RUN_STEP - 1) // RUN_STEP * RUN_STEP
        offsets_E = padded_E.cumsum(0)
        moved_E = (offsets_E - padded_E) - (counts_E.cumsum(0) - counts_E)
        slots_N = torch.arange(len(order_N), device=order_N.device) + moved_E[experts_N]
        token_P = torch.zeros(int(offsets_E[-1]), dtype=torch.int64, device=order_N.device)
        token_P[slots_N] = order_N // expert_ids_TK.shape[1]
        return PaddedDispatched(
            hidden_ND=hidden_TD[token_P],
            offsets_E=offsets_E.int(),
            order_N=order_N,
            slots_TK=torch.empty_like(order_N).scatter_(0, order_N, slots_N).view_as(expert_ids_TK),
        )

    def combine(self, outputs_ND: Tensor, dispatched: Dispatched, weights_TK: Tensor) -> Tensor:
        """As `LocalTokenDispatcher.combine`."""
        assert isinstance(dispatched, PaddedDispatched)
        total_TD = torch.zeros((), device=outputs_ND.device)
        for slots_T, weights_T in zip(dispatched.slots_TK.unbind(1), weights_TK.unbind(1), strict=True):
            total_TD = total_TD + outputs_ND[slots_T].float() * weights_T[:, None]
        return total_TD.to(outputs_ND.dtype)
