"""Tokens and their chosen experts -> tokens sorted by expert, and back.

Either one rank holds all experts, or each rank holds some and the copies travel. Shapes: T tokens, K experts per token,
N = T * K copies of this rank's tokens, D width, E experts, L of them on this rank, R ranks, M copies from all ranks for
this rank's experts.
"""

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from model.parallel import RankGroup


@dataclass(frozen=True, kw_only=True)
class Dispatched:
    """hidden_ND: a copy of each token for each of its experts, sorted by expert; offsets_E (int32): where each
    expert's run ends; order_N: which (token, choice) each copy is."""

    hidden_ND: Tensor
    offsets_E: Tensor
    order_N: Tensor


class TokenDispatcher(Protocol):
    load_E: Tensor | None
    """int64: copies that each expert was given by this rank's tokens; None before the first."""

    def dispatch(self, hidden_TD: Tensor, expert_ids_TK: Tensor, is_token_T: Tensor | None = None) -> Dispatched: ...
    def combine(self, outputs_ND: Tensor, dispatched: Dispatched, weights_TK: Tensor) -> Tensor: ...


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
        return _weighted_sum(outputs_ND, dispatched.order_N, weights_TK)


@dataclass(frozen=True, kw_only=True)
class RankedDispatched(Dispatched):
    """`hidden_ND` holds the M copies for this rank's experts, and `offsets_E` is of its L experts; order_M: which of
    the copies, as they arrived, each one is."""

    order_M: Tensor
    num_sent_R: list[int]
    num_received_R: list[int]


class RankedTokenDispatcher:
    """Each copy goes to the rank of its expert, and what the expert makes of it comes back.

    All ranks of the group must dispatch and combine in turn, those without tokens as well.
    """

    def __init__(self, num_experts: int, group: RankGroup) -> None:
        self.num_experts, self._group = num_experts, group
        self._num_experts_R = group.share.num_experts_by_rank(num_experts)
        self.load_E: Tensor | None = None

    def dispatch(self, hidden_TD: Tensor, expert_ids_TK: Tensor, is_token_T: Tensor | None = None) -> RankedDispatched:
        """`is_token_T` is as for `LocalTokenDispatcher`; a step that is shared by ranks is never padded."""
        assert is_token_T is None, "a step of several ranks is not padded"
        experts_N, order_N = expert_ids_TK.flatten().sort(stable=True)
        counts_E = torch.bincount(experts_N, minlength=self.num_experts)
        self.load_E = counts_E if self.load_E is None else self.load_E + counts_E
        counts_by_rank = counts_E.split(self._num_experts_R)
        num_sent_R = [int(counts.sum()) for counts in counts_by_rank]
        counts_RL = self._group.exchange_counts(counts_by_rank)
        num_received_R = counts_RL.sum(dim=1).tolist()
        sent_ND = hidden_TD[order_N // expert_ids_TK.shape[1]]
        arrived_MD = self._group.exchange_rows(sent_ND, num_sent_R, num_received_R)
        expert_M = torch.arange(counts_RL.shape[1]).repeat(len(num_received_R)).repeat_interleave(counts_RL.flatten())
        order_M = expert_M.argsort(stable=True).to(hidden_TD.device)
        return RankedDispatched(
            hidden_ND=arrived_MD[order_M],
            offsets_E=counts_RL.sum(dim=0).cumsum(0).to(hidden_TD.device, torch.int32),
            order_N=order_N,
            order_M=order_M,
            num_sent_R=num_sent_R,
            num_received_R=num_received_R,
        )

    def combine(self, outputs_ND: Tensor, dispatched: Dispatched, weights_TK: Tensor) -> Tensor:
        """As `LocalTokenDispatcher.combine`, of what comes back to this rank's tokens."""
        assert isinstance(dispatched, RankedDispatched)
        arrived_MD = torch.empty_like(outputs_ND)
        arrived_MD[dispatched.order_M] = outputs_ND
        back_ND = self._group.exchange_rows(arrived_MD, dispatched.num_received_R, dispatched.num_sent_R)
        return _weighted_sum(back_ND, dispatched.order_N, weights_TK)


def _weighted_sum(outputs_ND: Tensor, order_N: Tensor, weights_TK: Tensor) -> Tensor:
    chosen_ND = torch.empty_like(outputs_ND)
    chosen_ND[order_N] = outputs_ND
    chosen_TKD = chosen_ND.unflatten(0, weights_TK.shape).float()
    return (chosen_TKD * weights_TK[..., None]).sum(dim=1).to(outputs_ND.dtype)
