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
        self.load_E: Tensor | None = None
        """int64: copies that each expert was given since it was made, on the device of the first; None before it."""

    def dispatch(self, hidden_TD: Tensor, expert_ids_TK: Tensor, is_token_T: Tensor | None = None) -> Dispatched:
        """Padding, where `is_token_T` (bool) is false, goes to its experts like the rest, but counts as no load."""
        # Nothing here waits for the device, so that a whole step can be queued, or captured: bincount would.
        experts_N, order_N = expert_ids_TK.flatten().sort(stable=True)
        experts_E = torch.arange(self.num_experts, device=experts_N.device)
        offsets_E = torch.searchsorted(experts_N, experts_E, right=True, out_int32=True)
        if is_token_T is None:
            self._load(offsets_E.device).add_(torch.diff(offsets_E, prepend=offsets_E.new_zeros(1)))
        else:
            counted_N = is_token_T[:, None].expand_as(expert_ids_TK).flatten().long()
            self._load(offsets_E.device).scatter_add_(0, expert_ids_TK.flatten(), counted_N)
        return Dispatched(
            hidden_ND=hidden_TD[order_N // expert_ids_TK.shape[1]],
            offsets_E=offsets_E,
            order_N=order_N,
        )

    def _load(self, device: torch.device) -> Tensor:
        if self.load_E is None or self.load_E.device != device:
            with torch.inference_mode(False):  # it outlives the step that makes it
                self.load_E = torch.zeros(self.num_experts, dtype=torch.int64, device=device)
        return self.load_E

    def combine(self, outputs_ND: Tensor, dispatched: Dispatched, weights_TK: Tensor) -> Tensor:
        """Weighted sum over each token's experts, in float32 and in the order of its choices; returns [T, D]."""
        chosen_ND = torch.empty_like(outputs_ND)
        chosen_ND[dispatched.order_N] = outputs_ND
        chosen_TKD = chosen_ND.unflatten(0, weights_TK.shape).float()
        return (chosen_TKD * weights_TK[..., None]).sum(dim=1).to(outputs_ND.dtype)
