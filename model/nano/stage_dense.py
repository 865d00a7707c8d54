"""Stage 1: the vision encoder alone learns to see, patch by patch, from dense targets."""

import torch
from torch import Tensor, nn

from model.deepseek_vl2 import DeepseekVL2
from model.nano.dense_head import DenseHead, as_tensors
from model.nano.dense_targets import dense_targets
from model.nano.scenes import render_scene
from model.tiling import tile_image

MAX_TILES_PER_IMAGE = 4
"""The global view and, by turns, three of the local tiles: many pictures teach more than every tile of few."""


class DenseStage:
    name = "dense"

    def __init__(self, model: DeepseekVL2, head: DenseHead) -> None:
        self.model, self.head = model, head

    def modules(self) -> dict[str, nn.Module]:
        return {"vision": self.model.vision, "head": self.head}

    def loss(self, seeds: list[int], step: int) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss on the scenes of these seeds, and per aspect (number right, number judged)."""
        config = self.model.config
        scenes = [render_scene(seed) for seed in seeds]
        images = [tile_image(scene.image, config.candidate_resolutions) for scene in scenes]
        kept = [_kept_tiles(len(image.tiles), seed) for image, seed in zip(images, seeds, strict=True)]
        vision = config.vision
        targets = [
            dense_targets(scene, image.grid, tile_px=vision.image_size, patch_px=vision.patch_size)
            for scene, image in zip(scenes, images, strict=True)
        ]
        tiles = torch.cat([torch.from_numpy(image.tiles[rows]) for image, rows in zip(images, kept, strict=True)])
        device = self.model.device
        wanted = {name: tensor.to(device) for name, tensor in as_tensors(targets, kept).items()}
        loss, counts = self.head(self.model.vision(tiles.to(device)), wanted)
        return loss, counts

    def after_step(self) -> dict[str, Tensor]:
        return {}


def _kept_tiles(num_tiles: int, seed: int) -> list[int]:
    """0, the global view, and three local tiles in a row, beginning anywhere."""
    num_local = num_tiles - 1
    first = seed % num_local
    return [0, *(1 + (first + index) % num_local for index in range(min(MAX_TILES_PER_IMAGE - 1, num_local)))]
