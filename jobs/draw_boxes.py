"""A picture and the boxes of its labels -> a PNG to look at, each thing in a colour of its own with its name."""

import colorsys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image, ImageDraw, ImageFont

from schemas.rows import Label

MIN_FONT_PX = 12
_GOLDEN_RATIO = 0.618034


def draw_boxes(
    picture: Image.Image, labels: Sequence[Label], path: Path, *, size_px: tuple[int, int] | None = None
) -> int:
    """Draws onto a copy, as large as the picture. Returns the number of boxes.

    Args:
        size_px: (width, height) of the image in whose pixels the boxes are; by default that of the picture.

    Raises ValueError where the file cannot be written.
    """
    picture = picture.copy()
    draw = ImageDraw.Draw(picture)
    width_px = max(2, round(max(picture.size) / 300))
    font = ImageFont.load_default(size=max(MIN_FONT_PX, round(max(picture.size) / 45)))
    colors: dict[str, tuple[int, int, int]] = {}
    width, height = size_px or picture.size
    boxes = [_scaled(box, picture.width / width, picture.height / height) for box in _boxes(labels)]
    for box in boxes:
        color = colors.setdefault(box["label"], _color(len(colors)))
        corners = (box["x1"], box["y1"], max(box["x1"], box["x2"] - 1), max(box["y1"], box["y2"] - 1))
        draw.rectangle(corners, outline=color, width=width_px)
    for box in boxes:  # over all frames
        _name(draw, box, colors[box["label"]], font, picture.size)
    try:
        picture.save(path, format="PNG")
    except OSError as error:
        raise ValueError(f"{path} cannot be written: {error.strerror or error}") from error
    return len(boxes)


def _boxes(labels: Sequence[Label]) -> Iterator[Mapping[str, Any]]:
    for label in labels:
        if not label.values.get("image_index"):  # of a sample's first image
            yield from label.values.get("boxes", ())


def _scaled(box: Mapping[str, Any], per_x: float, per_y: float) -> Mapping[str, Any]:
    return {
        **box,
        **{key: box[key] * per_x for key in ("x1", "x2")},
        **{key: box[key] * per_y for key in ("y1", "y2")},
    }


def _name(
    draw: ImageDraw.ImageDraw,
    box: Mapping[str, Any],
    color: tuple[int, int, int],
    font: "ImageFont.ImageFont | ImageFont.FreeTypeFont",
    size: tuple[int, int],
) -> None:
    """Above the box where there is room, else inside; never outside the picture."""
    left, top, right, bottom = draw.textbbox((0, 0), box["label"], font=font)
    wide, high = right - left + 6, bottom - top + 6
    x = max(0, min(box["x1"], size[0] - wide))
    y = box["y1"] - high if box["y1"] >= high else box["y1"]
    draw.rectangle((x, y, x + wide, y + high), fill=color)
    draw.text((x + 3 - left, y + 3 - top), box["label"], fill="black", font=font)


def _color(number: int) -> tuple[int, int, int]:
    """Light, so that black writing stands out, and far from the ones before."""
    red, green, blue = colorsys.hls_to_rgb((0.33 + number * _GOLDEN_RATIO) % 1, 0.6, 0.9)
    return round(red * 255), round(green * 255), round(blue * 255)
