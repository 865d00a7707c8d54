"""Patch features -> image tokens of the language model's width: 2x2 patches become one token.

Shapes: N tiles, P patches (g a side), C tower width, M image tokens (n a side, n = ceil(g / r)), D language width.
"""

import itertools

import torch.nn.functional as F
from torch import Tensor, nn

from model.config import ProjectorConfig


class Projector(nn.Module):
    """`downsample_mlp_gelu`: join r x r patches, then `depth` linear layers with exact GELU between them."""

    def __init__(self, config: ProjectorConfig) -> None:
        super().__init__()
        self.downsample_ratio = config.downsample_ratio
        hidden = config.n_embed * config.mlp_ratio
        widths = [
            config.input_dim * config.downsample_ratio**2,
            *[hidden] * (config.depth - 1),
            config.n_embed,
        ]
        self.layers = nn.ModuleList(nn.Linear(i, o) for i, o in itertools.pairwise(widths))

    def forward(self, features_NPC: Tensor) -> Tensor:
        """[N, P, C] -> [N, M, D], tokens row by row."""
        x = self._join_patches(features_NPC)
        for layer in self.layers[:-1]:
            x = F.gelu(layer(x))
        return self.layers[-1](x)

    def _join_patches(self, features_NPC: Tensor) -> Tensor:
        """[N, P, C] -> [N, M, C*r*r]; within a token the order is channel, then row, then column, as of `unfold`.

        A side that is no multiple of r gets zeros at the right and bottom, after the tower's norm (27 -> 28).
        """
        r = self.downsample_ratio
        side = round(features_NPC.shape[1] ** 0.5)
        grid_NggC = features_NPC.unflatten(1, (side, side))
        pad = -side % r
        grid_NggC = F.pad(grid_NggC, (0, 0, 0, pad, 0, pad))
        n = (side + pad) // r
        blocks = grid_NggC.unflatten(2, (n, r)).unflatten(1, (n, r))  # [N, n, r(y), n, r(x), C]
        return blocks.permute(0, 1, 3, 5, 2, 4).flatten(3).flatten(1, 2)
