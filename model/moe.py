"""Hidden states -> mixture-of-experts outputs: router, routed experts, shared experts, and the dense SwiGLU.

Shapes: T tokens, D width, E routed experts, K chosen per token, I expert width, N = T * K copies sorted by expert.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import LanguageConfig
from model.kernels import few_rows
from model.linear import Linear
from model.token_dispatcher import LocalTokenDispatcher, TokenDispatcher


class SwiGLU(nn.Module):
    """silu(gate) * up -> down, no biases; gate and up lie in one matrix, gate first."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_up_proj = Linear(hidden_size, 2 * intermediate_size, bias=False)
        self.down_proj = Linear(intermediate_size, hidden_size, bias=False)

    def forward(self, hidden_TD: Tensor) -> Tensor:
        return self.down_proj(silu_and_mul(self.gate_up_proj(hidden_TD)))


class MoE(nn.Module):
    """Routed experts, plus one SwiGLU of all shared experts together, added unweighted."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        assert config.n_routed_experts is not None
        self.gate = Router(config)
        self.experts = RoutedExperts(config)
        self.dispatcher: TokenDispatcher = LocalTokenDispatcher(config.n_routed_experts)
        self.shared_experts = (
            SwiGLU(config.hidden_size, config.moe_intermediate_size * config.n_shared_experts)
            if config.n_shared_experts
            else None
        )

    def forward(self, hidden_TD: Tensor, is_token_T: Tensor | None = None) -> Tensor:
        """`is_token_T`: bool, false for padding, which is computed but counts as no expert's load."""
        expert_ids_TK, weights_TK = self.gate(hidden_TD)
        dispatched = self.dispatcher.dispatch(hidden_TD, expert_ids_TK, is_token_T)
        outputs_ND = self.experts(dispatched.hidden_ND, dispatched.offsets_E)
        routed_TD = self.dispatcher.combine(outputs_ND, dispatched, weights_TK)
        return routed_TD if self.shared_experts is None else routed_TD + self.shared_experts(hidden_TD)


class Router(nn.Module):
    """Chooses K experts per token and their weights; everything in float32 whatever the model's dtype."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.zeros(config.n_routed_experts or 0, config.hidden_size))
        if config.topk_method == "noaux_tc":
            self.e_score_correction_bias = nn.Parameter(torch.zeros(config.n_routed_experts or 0))

    def forward(self, hidden_TD: Tensor) -> tuple[Tensor, Tensor]:
        """Returns expert ids int64 [T, K] and their weights float32 [T, K]."""
        config = self.config
        logits_TE = F.linear(hidden_TD.float(), self.weight.float())
        scores_TE = logits_TE.softmax(dim=-1) if config.scoring_func == "softmax" else logits_TE.sigmoid()
        ids_TK, weights_TK = self._choose(scores_TE)
        if config.num_experts_per_tok > 1 and config.norm_topk_prob:
            weights_TK = weights_TK / (weights_TK.sum(dim=-1, keepdim=True) + 1e-20)
        return ids_TK, weights_TK * config.routed_scaling_factor

    def _choose(self, scores_TE: Tensor) -> tuple[Tensor, Tensor]:
        k = self.config.num_experts_per_tok
        if self.config.topk_method == "noaux_tc":
            # The bias steers the choice only (arXiv 2412.19437, section 2.1.2); weights are the scores without it.
            biased_TE = scores_TE + self.e_score_correction_bias.float()
            groups = biased_TE.unflatten(-1, (self.config.n_group, -1))
            ids_TK = self._keep_best_groups(biased_TE, groups.topk(2, dim=-1).values.sum(-1)).topk(k).indices
            return ids_TK, scores_TE.gather(1, ids_TK)
        if self.config.topk_method == "group_limited_greedy":
            groups = scores_TE.unflatten(-1, (self.config.n_group, -1))
            scores_TE = self._keep_best_groups(scores_TE, groups.amax(-1))
        best = scores_TE.topk(k)
        return best.indices, best.values

    def _keep_best_groups(self, scores_TE: Tensor, group_scores_TG: Tensor) -> Tensor:
        """Scores of experts outside the `topk_group` best groups become 0 (not -inf), as in the reference."""
        best_TG = torch.zeros_like(group_scores_TG, dtype=torch.bool)
        best_TG.scatter_(1, group_scores_TG.topk(self.config.topk_group).indices, True)
        is_best_TE = best_TG[..., None].expand(*best_TG.shape, scores_TE.shape[1] // best_TG.shape[1]).flatten(1)
        return scores_TE.masked_fill(~is_best_TE, 0.0)


class RoutedExperts(nn.Module):
    """The weights of the routed experts, stacked: gate_up_E2ID and down_EDI; of all, or of those of this rank."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        num_experts, width = config.n_routed_experts or 0, config.moe_intermediate_size
        self.gate_up_proj = nn.Parameter(torch.zeros(num_experts, 2 * width, config.hidden_size))
        self.down_proj = nn.Parameter(torch.zeros(num_experts, config.hidden_size, width))

    @property
    def waits_for_device(self) -> bool:
        """Whether the host has to know the offsets: the loop reads them, and torch's grouped product before Hopper."""
        weights = (self.gate_up_proj, self.down_proj)
        if not all(_is_grouped(weight_EOI) for weight_EOI in weights):
            return True
        return torch.cuda.get_device_capability(self.down_proj.device)[0] not in (9, 10)

    def forward(self, hidden_ND: Tensor, offsets_E: Tensor) -> Tensor:
        """Rows offsets[e-1]..offsets[e] through expert e; [N, D].

        On CUDA in bfloat16 these are two grouped products without a host sync, and for few rows on a CPU a kernel of
        our own. Elsewhere it is a loop over the experts that have rows, which serves every dtype and width.
        """
        if _is_grouped(self.gate_up_proj) and _is_grouped(self.down_proj):
            inner_NI = silu_and_mul(grouped_linear(hidden_ND, self.gate_up_proj, offsets_E))
            return grouped_linear(inner_NI, self.down_proj, offsets_E)
        if few_rows.takes_experts(hidden_ND, self.gate_up_proj, self.down_proj):
            return few_rows.experts(hidden_ND, self.gate_up_proj, self.down_proj, offsets_E)
        return experts_loop(hidden_ND, self.gate_up_proj, self.down_proj, offsets_E)


def silu_and_mul(gate_up: Tensor) -> Tensor:
    gate, up = gate_up.chunk(2, dim=-1)
    return F.silu(gate) * up


def grouped_linear(x_NI: Tensor, weight_EOI: Tensor, offsets_E: Tensor) -> Tensor:
    """Rows offsets[e-1]..offsets[e] of x times weight[e] transposed; returns [N, O]."""
    return F.grouped_mm(x_NI, weight_EOI.transpose(1, 2), offs=offsets_E)


def _is_grouped(weight_EOI: Tensor) -> bool:
    aligned = weight_EOI.shape[1] % 8 == 0 and weight_EOI.shape[2] % 8 == 0  # the kernel wants strides of 16 bytes
    return weight_EOI.is_cuda and weight_EOI.dtype == torch.bfloat16 and aligned


def experts_loop(hidden_ND: Tensor, gate_up_EJD: Tensor, down_EDI: Tensor, offsets_E: Tensor) -> Tensor:
    """Expert by expert, with rows as columns (J = 2 I): products of many weights with few columns are shared out
    better among a CPU's threads than those of few rows with many weights, up to twice as fast below 300 rows."""
    ends = offsets_E.tolist()
    runs = [hidden_ND.new_empty(0, hidden_ND.shape[1])]
    for expert, (start, end) in enumerate(zip([0, *ends], ends, strict=False)):
        if end > start:
            gate_IN, up_IN = (gate_up_EJD[expert] @ hidden_ND[start:end].t()).chunk(2)
            runs.append((down_EDI[expert] @ (F.silu(gate_IN) * up_IN)).t())
    return torch.cat(runs)
