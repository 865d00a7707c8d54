"""Patch features -> what the patch shows, and how wrong that is: the vision encoder's first teacher.

Used in training only, never saved with the checkpoint. Shapes: N tiles, P patches, C tower width.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.nano.dense_targets import CHARACTERS, COLOR_NAMES, IGNORED, NUMBER, SHAPE_NAMES, DenseTargets
from model.nano.scenes import SIZES, WORLD

_CELLS = 4
_NUM_CHARS, _NUM_WORDS, _NUM_SHAPES = 1 + len(CHARACTERS), 1 + NUMBER, 1 + len(SHAPE_NAMES)
_SPLITS = (_CELLS * _NUM_CHARS, _NUM_WORDS, _NUM_SHAPES, len(COLOR_NAMES), len(SIZES), WORLD.max_objects, 4)
_WITH_EMPTY = ("chars", "words", "shapes")
EMPTY_WEIGHT = 0.3
"""Of patches that show nothing, which are most of them."""
_LOSS_WEIGHTS = {"chars": 1.0, "words": 0.5, "shapes": 0.5, "colors": 0.25, "sizes": 0.25, "ranks": 0.5, "sides": 4.0}


class DenseHead(nn.Module):
    """One linear layer: what it can tell stands in the features as they are."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.linear = nn.Linear(width, sum(_SPLITS))

    def forward(self, features_NPC: Tensor, targets: dict[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """Args:
            targets: the fields of `DenseTargets` as tensors, by name.

        Returns: the loss, and per aspect a float32 pair (number right, number judged); for `sides` the sum of absolute
        errors stands for the number right.
        """
        predicted = self.linear(features_NPC).float().split(_SPLITS, dim=-1)
        chars, words, shapes, colors, sizes, ranks, sides = predicted
        logits = {
            "chars": (chars.unflatten(-1, (_CELLS, -1)), targets["chars_NP4"]),
            "words": (words, targets["words_NP"]),
            "shapes": (shapes, targets["shapes_NP"]),
            "colors": (colors, targets["colors_NP"]),
            "sizes": (sizes, targets["sizes_NP"]),
            "ranks": (ranks, targets["ranks_NP"]),
        }
        there_NP = targets["shapes_NP"] > 0
        errors_X4 = (sides.sigmoid() - targets["sides_NP4"]).abs()[there_NP]
        losses = {name: _classify(*pair, has_empty=name in _WITH_EMPTY) for name, pair in logits.items()}
        losses["sides"] = errors_X4.sum() / max(1, errors_X4.numel())
        loss = sum((_LOSS_WEIGHTS[name] * value for name, value in losses.items()), start=torch.zeros(()))
        with torch.no_grad():
            counts = {
                name: _count_right(*pair, above=0 if name in _WITH_EMPTY else IGNORED) for name, pair in logits.items()
            }
            counts["sides"] = torch.stack([errors_X4.sum(), torch.tensor(float(errors_X4.numel()))])
        return loss, counts


def as_tensors(parts: list[DenseTargets], kept: list[list[int]] | None = None) -> dict[str, Tensor]:
    """The targets of several images in one batch of tiles; of each image those tiles that are `kept`."""
    names = DenseTargets.__dataclass_fields__
    rows = kept or [list(range(len(part.words_NP))) for part in parts]
    return {
        name: torch.cat([torch.from_numpy(getattr(part, name)[index]) for part, index in zip(parts, rows, strict=True)])
        for name in names
    }


def _classify(logits: Tensor, targets: Tensor, *, has_empty: bool) -> Tensor:
    weights = torch.ones(logits.shape[-1], device=logits.device)
    if has_empty:
        weights[0] = EMPTY_WEIGHT
    flat, wanted = logits.flatten(0, -2), targets.flatten()
    total = F.cross_entropy(flat, wanted, weight=weights, ignore_index=IGNORED, reduction="sum")
    judged = weights[wanted.clamp(min=0)] * (wanted != IGNORED)
    return total / judged.sum().clamp(min=1)


def _count_right(logits: Tensor, targets: Tensor, *, above: int) -> Tensor:
    judged = targets > above
    right = (logits.argmax(-1) == targets) & judged
    return torch.stack([right.sum(), judged.sum()]).float()
