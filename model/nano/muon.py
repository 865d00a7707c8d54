"""Muon (Keller Jordan, 2024; scaled as in arXiv 2502.16982, section 2.2): momentum steps of orthogonal matrices.

Beside torch's own, because that one orthogonalises in bfloat16 alone and one matrix at a time, which on a CPU without
bfloat16 products costs more than all the rest. Here matrices of one shape are one batched product, in the dtype that
the machine is fast in, and ranks share the work. Shapes: N matrices, R rows, C columns, R <= C.
"""

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor

NEWTON_SCHULZ = (3.4445, -4.7750, 2.0315)
NUM_ITERATIONS = 5
EPS = 1e-7


class Muon(torch.optim.Optimizer):
    """Steps float32 matrices [R, C], and stacks of them [N, R, C] matrix by matrix."""

    def __init__(
        self, params: Iterable[Any], *, dtype: torch.dtype, momentum: float = 0.95, weight_decay: float = 0.0
    ) -> None:
        super().__init__(params, {"lr": 1.0, "momentum": momentum, "weight_decay": weight_decay})
        self._dtype = dtype

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        assert closure is None
        params = [(group, param) for group in self.param_groups for param in group["params"]]
        updates = [self._momentum(group, param) for group, param in params]
        for (group, param), update in zip(params, self._orthogonal(updates), strict=True):
            rms = 0.2 * math.sqrt(max(param.shape[-2:]))  # of AdamW's steps, so that both share their learning rates
            param.mul_(1 - group["lr"] * group["weight_decay"])
            param.add_(update, alpha=-group["lr"] * rms)

    def _momentum(self, group: dict[str, Any], param: Tensor) -> Tensor:
        state = self.state[param]
        if not state:
            state["momentum_buffer"] = torch.zeros_like(param)
        gradient = param.grad
        assert gradient is not None
        buffer = state["momentum_buffer"].lerp_(gradient, 1 - group["momentum"])
        return gradient.lerp(buffer, group["momentum"])

    def _orthogonal(self, updates: list[Tensor]) -> list[Tensor]:
        """Each update made orthogonal; every rank does its part of the stacks and gets the others'."""
        stacks: dict[tuple[int, int], list[int]] = {}
        for index, update in enumerate(updates):
            stacks.setdefault((min(update.shape[-2:]), max(update.shape[-2:])), []).append(index)
        results = [torch.zeros_like(update) for update in updates]
        for stack in self._own(updates, list(stacks.values())):
            wide = [_wide(updates[one]).reshape(-1, *_wide(updates[one]).shape[-2:]) for one in stack]
            done = orthogonalize(torch.cat(wide).to(self._dtype)).float().split([len(part) for part in wide])
            for one, part in zip(stack, done, strict=True):
                upright = part if updates[one].shape[-2] <= updates[one].shape[-1] else part.mT
                results[one].copy_(upright.reshape(updates[one].shape))
        return _shared(results)

    @staticmethod
    def _own(updates: list[Tensor], stacks: list[list[int]]) -> list[list[int]]:
        """This rank's stacks: the dearest that is left goes to whoever has least."""
        if not dist.is_initialized():
            return stacks
        pieces = [piece for stack in stacks for piece in (stack[::2], stack[1::2]) if piece]
        costs = [sum(updates[one].numel() * min(updates[one].shape[-2:]) for one in piece) for piece in pieces]
        loads = [0] * dist.get_world_size()
        own = []
        for cost, piece in sorted(zip(costs, pieces, strict=True), reverse=True):
            rank = loads.index(min(loads))
            loads[rank] += cost
            if rank == dist.get_rank():
                own.append(piece)
        return own


def orthogonalize(x_NRC: Tensor) -> Tensor:
    """Every singular value to about 1, by a quintic Newton-Schulz iteration; R <= C."""
    a, b, c = NEWTON_SCHULZ
    x = x_NRC / (x_NRC.flatten(1).norm(dim=1)[:, None, None] + EPS)
    for _ in range(NUM_ITERATIONS):
        gram = x @ x.mT
        polynomial = torch.baddbmm(gram, gram, gram, beta=b, alpha=c)
        x = torch.baddbmm(x, polynomial, x, beta=a)
    return x


def _wide(matrix: Tensor) -> Tensor:
    return matrix if matrix.shape[-2] <= matrix.shape[-1] else matrix.mT


def _shared(results: list[Tensor]) -> list[Tensor]:
    """Sum over the ranks: of each result all but one rank hold zeros."""
    if not dist.is_initialized() or not results:
        return results
    flat = torch.cat([result.flatten() for result in results])
    dist.all_reduce(flat)
    pieces = flat.split([result.numel() for result in results])
    return [piece.view_as(result) for piece, result in zip(pieces, results, strict=True)]
