"""What tests of scenes measure in pictures and in their truth."""

import numpy as np

from model.nano.scene_records import Box
from model.nano.scene_text import TILE_PX
from model.nano.scenes import Scene

NUM_SCENES = 300
GRIDS = sorted(
    ((w * TILE_PX, h * TILE_PX) for w in range(1, 10) for h in range(1, 10) if w * h <= 9),
    key=lambda size: size[0] * size[1],
)


def with_objects(scenes: list[Scene]) -> list[Scene]:
    return [scene for scene in scenes if scene.objects]


def with_text(scenes: list[Scene]) -> list[Scene]:
    return [scene for scene in scenes if scene.text]


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def inside(inner: Box, outer: Box) -> bool:
    return outer[0] <= inner[0] < inner[2] <= outer[2] and outer[1] <= inner[1] < inner[3] <= outer[3]


def tight_box(is_covered: np.ndarray) -> Box:
    down, across = np.nonzero(is_covered)
    return int(across.min()), int(down.min()), int(across.max()) + 1, int(down.max()) + 1


def distance(pixels: np.ndarray, rgb: tuple[int, int, int]) -> np.ndarray:
    return np.linalg.norm(pixels.astype(float) - np.array(rgb), axis=-1)
