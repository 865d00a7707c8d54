"""Positions -> rotations of queries and keys: plain, linearly scaled, and yarn (arXiv 2309.00071).

Shapes: T tokens, R rotated width (qk_rope_head_dim for MLA, the whole head for MHA).
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from model.config import LanguageConfig, LinearRopeConfig, YarnConfig


@dataclass(frozen=True)
class Rotation:
    """cos and sin, float32 [T, R/2], of each token's position."""

    cos: Tensor
    sin: Tensor

    def apply(self, x_THR: Tensor) -> Tensor:
        """Rotates pairs (i, i + R/2) of the last dimension of [T, heads, R]; computed in float32."""
        cos, sin = self.cos[:, None], self.sin[:, None]
        first, second = x_THR.float().chunk(2, dim=-1)
        return torch.cat([first * cos - second * sin, second * cos + first * sin], dim=-1).to(x_THR.dtype)

    def apply_interleaved(self, x_THR: Tensor) -> Tensor:
        """Rotates pairs (2i, 2i + 1), as MLA's checkpoints lay them; the result lies de-interleaved [even | odd]."""
        return self.apply(x_THR.unflatten(-1, (-1, 2)).transpose(-1, -2).flatten(-2))


class RotaryEmbedding:
    """Frequencies of one checkpoint. Tables are made per step from the positions: there is no length to outgrow."""

    def __init__(self, config: LanguageConfig) -> None:
        self._rope_scaling = config.rope_scaling
        dim = config.qk_rope_head_dim if config.use_mla else config.head_dim
        self._inv_freq = _inv_freq(dim, config.rope_theta, config.rope_scaling)
        self._magnitude = 1.0
        if isinstance(config.rope_scaling, YarnConfig):
            yarn = config.rope_scaling
            self._magnitude = yarn.attention_factor(yarn.factor, yarn.mscale) / yarn.attention_factor(
                yarn.factor, yarn.mscale_all_dim
            )

    def __call__(self, positions_T: Tensor) -> Rotation:
        if self._inv_freq.device != positions_T.device:
            self._inv_freq = self._inv_freq.to(positions_T.device)
        positions = positions_T.float()
        if isinstance(self._rope_scaling, LinearRopeConfig):
            positions = positions / self._rope_scaling.factor
        angles = torch.outer(positions, self._inv_freq)
        return Rotation(cos=angles.cos() * self._magnitude, sin=angles.sin() * self._magnitude)


def mla_softmax_scale(config: LanguageConfig) -> float:
    """(nope + rope)^-0.5, times the square of yarn's attention factor where `mscale_all_dim` is set."""
    scale = (config.qk_nope_head_dim + config.qk_rope_head_dim) ** -0.5
    yarn = config.rope_scaling
    if isinstance(yarn, YarnConfig) and yarn.mscale_all_dim:
        scale *= yarn.attention_factor(yarn.factor, yarn.mscale_all_dim) ** 2
    return scale


def _inv_freq(dim: int, theta: float, scaling: YarnConfig | LinearRopeConfig | None) -> Tensor:
    """[dim/2]: theta^(-2i/dim); with yarn, slow dimensions are interpolated by `factor` and fast ones left alone."""
    # The device is named because models are built under torch.device("meta"), and these are no parameters.
    powers = theta ** (torch.arange(0, dim, 2, dtype=torch.float32, device="cpu") / dim)
    if not isinstance(scaling, YarnConfig):
        return 1.0 / powers

    def dimension_that_turns(num_rotations: float) -> float:
        turns = scaling.original_max_position_embeddings / (num_rotations * 2 * math.pi)
        return dim * math.log(turns) / (2 * math.log(theta))

    low = max(math.floor(dimension_that_turns(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension_that_turns(scaling.beta_slow)), dim - 1)
    width = (high - low) or 0.001
    interpolated = ((torch.arange(dim // 2, dtype=torch.float32, device="cpu") - low) / width).clamp(0, 1)
    kept = 1 - interpolated
    return 1.0 / (scaling.factor * powers) * (1 - kept) + 1.0 / powers * kept
