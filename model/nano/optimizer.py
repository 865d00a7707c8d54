"""Gradients of a model -> steps of its float32 master weights: Muon for matrices, AdamW for the rest.

Knows nothing of what is trained.
"""

from collections.abc import Iterable

import torch
import torch.distributed as dist
from torch import Tensor, nn

from model.nano.muon import Muon

MUON_LR, ADAMW_LR = 5e-3, 2e-3
MUON_WEIGHT_DECAY = 0.05
MAX_GRAD_NORM = 1.0
_NOT_BY_MUON = ("embed_tokens", "lm_head", "pos_embed", "patch_embed", "mlp.gate.", "linear.")
"""Matrices whose rows are looked up, or that read pixels or choose experts: AdamW's, as in the authors' advice."""


class MasterOptimizer:
    """Steps float32 copies of the parameters and writes them back rounded to bfloat16, whatever dtype the model
    computes in: what is trained is what will be saved."""

    def __init__(
        self,
        named_parameters: Iterable[tuple[str, nn.Parameter]],
        *,
        lr_scales: dict[str, float],
        dtype: torch.dtype = torch.bfloat16,
    ) -> None:
        """Args:
        lr_scales: by prefix of the parameter's name, the share of the learning rate it gets; 1 where none fits.
        dtype: what Muon's own products are computed in.
        """
        self._parameters: list[nn.Parameter] = []
        self._masters: list[Tensor] = []
        groups: dict[tuple[str, float], list[Tensor]] = {}
        for name, parameter in named_parameters:
            is_matrix = parameter.dim() >= 2 and not any(part in name for part in _NOT_BY_MUON)
            scale = next((value for prefix, value in lr_scales.items() if name.startswith(prefix)), 1.0)
            master = parameter.detach().float().clone()
            self._parameters.append(parameter)
            self._masters.append(master)
            groups.setdefault(("muon" if is_matrix else "adamw", scale), []).append(master)
        self.muon = Muon(_groups(groups, "muon", MUON_LR), dtype=dtype, weight_decay=MUON_WEIGHT_DECAY)
        self.adamw = torch.optim.AdamW(_groups(groups, "adamw", ADAMW_LR), betas=(0.9, 0.98), weight_decay=0.0)

    def step(self, rate: float) -> float:
        """One step at `rate` times each group's learning rate, with gradients averaged over the ranks and clipped
        together; returns their norm. Gradients are used up."""
        gradients = [torch.zeros_like(one) if one.grad is None else one.grad for one in self._parameters]
        flat = torch.cat([gradient.flatten().float() for gradient in gradients])
        if dist.is_initialized():
            dist.all_reduce(flat)
            flat /= dist.get_world_size()
        norm = float(flat.norm())
        flat *= min(1.0, MAX_GRAD_NORM / (norm + 1e-6))
        pieces = flat.split([parameter.numel() for parameter in self._parameters])
        for parameter, master, piece in zip(self._parameters, self._masters, pieces, strict=True):
            master.grad = piece.view_as(parameter)
            parameter.grad = None
        for optimizer in (self.muon, self.adamw):
            for group in optimizer.param_groups:
                group["lr"] = rate * group["full_lr"]
            optimizer.step()
        self._write_back()
        return norm

    def _write_back(self) -> None:
        with torch.no_grad():
            for parameter, master in zip(self._parameters, self._masters, strict=True):
                parameter.copy_(master.to(torch.bfloat16))

    def state_dict(self) -> dict[str, object]:
        return {"masters": self._masters, "muon": self.muon.state_dict(), "adamw": self.adamw.state_dict()}

    def load_state_dict(self, state: dict[str, object]) -> None:
        with torch.no_grad():
            for master, saved in zip(self._masters, state["masters"], strict=True):  # type: ignore[call-overload]
                master.copy_(saved)
        self.muon.load_state_dict(state["muon"])  # type: ignore[arg-type]
        self.adamw.load_state_dict(state["adamw"])  # type: ignore[arg-type]
        self._write_back()


def _groups(groups: dict[tuple[str, float], list[Tensor]], kind: str, full_lr: float) -> list[dict[str, object]]:
    return [
        {"params": masters, "full_lr": full_lr * scale, "lr": full_lr * scale}
        for (name, scale), masters in groups.items()
        if name == kind
    ]
