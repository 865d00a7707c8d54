"""A layout -> its pixels, and the exact box of each shape.

Shapes are drawn larger and scaled down, so their edges are smooth. Knows nothing of what is asked about a scene.
"""

import math

import numpy as np
from PIL import Image, ImageDraw

from model.nano.scene_layout import NOISE_SIDE
from model.nano.scene_records import Box, Ground, Layout, Placement, SceneObject, TextBlock
from model.nano.scene_text import load_font

Point = tuple[float, float]


def _star() -> tuple[Point, ...]:
    """Five points, the inner corners further out than a pentagram's so that small stars keep a body."""
    points = []
    for corner in range(10):
        radius, angle = 0.5 if corner % 2 == 0 else 0.23, math.pi * (corner / 5 - 0.5)
        points.append((round(0.5 + radius * math.cos(angle), 6), round(0.53 + radius * math.sin(angle), 6)))
    return tuple(points)


_NEAR, _FAR = 0.32, 0.68

OUTLINES: dict[str, tuple[Point, ...]] = {
    "square": ((0, 0), (1, 0), (1, 1), (0, 1)),
    "triangle": ((0.5, 0.05), (1, 0.93), (0, 0.93)),
    "star": _star(),
    "cross": (
        *((_NEAR, 0), (_FAR, 0), (_FAR, _NEAR), (1, _NEAR), (1, _FAR), (_FAR, _FAR)),
        *((_FAR, 1), (_NEAR, 1), (_NEAR, _FAR), (0, _FAR), (0, _NEAR), (_NEAR, _NEAR)),
    ),
    "diamond": ((0.5, 0), (0.86, 0.5), (0.5, 1), (0.14, 0.5)),
}
"""Corners in a unit square, y down; a circle has none."""

_COVERED_BY_HALF = [255 if level >= 128 else 0 for level in range(256)]


def draw_scene(layout: Layout) -> tuple[Image.Image, tuple[SceneObject, ...]]:
    """The picture (RGB) and its objects, in the order of `layout.placements`."""
    image = draw_ground(layout.ground, layout.width, layout.height)
    objects = []
    for placement in layout.placements:
        mask = shape_mask(placement.shape, placement.extent_px)
        image.paste(placement.rgb, (placement.left, placement.top), mask)
        box = _visible_box(mask, placement)
        objects.append(SceneObject(color=placement.color, shape=placement.shape, size=placement.size, box=box))
    if layout.text:
        _draw_text(ImageDraw.Draw(image), layout.text)
    return image, tuple(objects)


def shape_mask(shape: str, extent_px: int) -> Image.Image:
    """How much of each pixel of a square patch the shape covers: mode L, 0 to 255."""
    factor = 4 if extent_px <= 128 else 2
    side = extent_px * factor
    mask = Image.new("L", (side, side))
    draw = ImageDraw.Draw(mask)
    if shape == "circle":
        draw.ellipse((0, 0, side - 1, side - 1), fill=255)
    else:
        draw.polygon([(x * (side - 1), y * (side - 1)) for x, y in OUTLINES[shape]], fill=255)
    return mask.reduce(factor)


def object_map(layout: Layout) -> np.ndarray:
    """uint8 [height, width]: 0 where there is no shape, else 1 + the index of the one that covers the pixel.

    For dense supervision of a vision encoder, patch by patch.
    """
    indices = Image.new("L", (layout.width, layout.height))
    for index, placement in enumerate(layout.placements):
        mask = shape_mask(placement.shape, placement.extent_px).point(_COVERED_BY_HALF)
        indices.paste(1 + index, (placement.left, placement.top), mask)
    return np.asarray(indices)


def draw_ground(ground: Ground, width: int, height: int) -> Image.Image:
    first, second = ground.tones
    plain = Image.new("RGB", (width, height), first)
    if ground.kind != "plain":
        plain.paste(second, mask=_share_of_second_tone(ground, width, height))
    return plain


def _share_of_second_tone(ground: Ground, width: int, height: int) -> Image.Image:
    if ground.kind == "speckles":
        noise = Image.frombytes("L", (NOISE_SIDE, NOISE_SIDE), ground.noise)
        return noise.resize((width, height), Image.Resampling.BILINEAR)
    across, down = np.arange(width)[None, :], np.arange(height)[:, None]
    if ground.kind == "gradient":
        share = down * 255 // height if ground.vertical else across * 255 // width
    elif ground.kind == "stripes":
        share = (down if ground.vertical else across) // ground.cell_px % 2 * 255
    else:
        share = (down // ground.cell_px + across // ground.cell_px) % 2 * 255
    return Image.fromarray(np.broadcast_to(share.astype(np.uint8), (height, width)))


def _visible_box(mask: Image.Image, placement: Placement) -> Box:
    tight = mask.point(_COVERED_BY_HALF).getbbox()
    assert tight is not None, "a shape of some pixels covers some"
    x1, y1, x2, y2 = tight
    return placement.left + x1, placement.top + y1, placement.left + x2, placement.top + y2


def _draw_text(draw: ImageDraw.ImageDraw, text: TextBlock) -> None:
    if text.plate:
        x1, y1, x2, y2 = text.plate
        border_px = max(1, text.em_px // 12)
        draw.rectangle((x1, y1, x2 - 1, y2 - 1), fill=text.plate_rgb, outline=text.ink, width=border_px)
    font = load_font(text.font, text.em_px)
    for line, position in zip(text.lines, text.positions, strict=True):
        draw.text(position, line, fill=text.ink, font=font, anchor="ls")
