"""Tiles -> patch features: the SigLIP tower of the reference, with its own 27x27 patches of a 384 px tile.

Knows nothing of grids, image tokens or language. Shapes: N tiles, S pixels a side, P patches, C tower width, H heads.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import VisionConfig

_NORM_EPS = 1e-6


class VisionEncoder(nn.Module):
    """Pre-norm transformer over the patches of each tile; learned positions, no class token, no interpolation."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.patch_embed = nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)
        self.pos_embed = nn.Parameter(torch.zeros(1, config.num_patches, config.width))
        self.blocks = nn.ModuleList(VisionBlock(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(config.width, eps=_NORM_EPS)

    def forward(self, tiles_NSS3: Tensor) -> Tensor:
        """uint8 [N, S, S, 3] -> features [N, P, C] in the tower's dtype, final norm applied, patches row by row."""
        size = self.config.image_size
        if tiles_NSS3.shape[1:] != (size, size, 3) or tiles_NSS3.dtype != torch.uint8:
            shape = tuple(tiles_NSS3.shape)
            raise ValueError(f"{tiles_NSS3.dtype} tiles of {shape} do not fit a tower for uint8 {size}x{size}x3")
        pixels = tiles_NSS3.permute(0, 3, 1, 2).float() / 255  # scaled in float32 whatever the tower's dtype
        pixels = ((pixels - 0.5) / 0.5).to(self.pos_embed.dtype)
        features_NPC = self.patch_embed(pixels).flatten(2).transpose(1, 2) + self.pos_embed
        for block in self.blocks:
            features_NPC = block(features_NPC)
        return self.norm(features_NPC)


class VisionBlock(nn.Module):
    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        hidden = int(config.width * config.mlp_ratio)
        self.norm1 = nn.LayerNorm(config.width, eps=_NORM_EPS)
        self.attn = VisionAttention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=_NORM_EPS)
        self.fc1 = nn.Linear(config.width, hidden)
        self.fc2 = nn.Linear(hidden, config.width)

    def forward(self, x_NPC: Tensor) -> Tensor:
        x_NPC = x_NPC + self.attn(self.norm1(x_NPC))
        return x_NPC + self.fc2(F.gelu(self.fc1(self.norm2(x_NPC)), approximate="tanh"))


class VisionAttention(nn.Module):
    """Full attention among the patches of a tile."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.num_heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x_NPC: Tensor) -> Tensor:
        q, k, v = self.qkv(x_NPC).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))
