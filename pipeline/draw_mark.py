"""An RGB picture and a mark -> a picture with the mark drawn in. Knows no files."""

import math

from PIL import Image, ImageDraw

from schemas.rows import Mark

_WIDTH_SHARE = 0.01
"""Of the shorter side."""
_HEAD_WIDTHS = 5
"""Length of an arrow's head, in widths of its line."""
_HEAD_ANGLE = math.radians(28)


def draw_mark(image: Image.Image, mark: Mark) -> Image.Image:
    """A copy. The mark's points are pixels of this image.

    Raises:
        ValueError: a kind that is not known, too few points, or a colour that Pillow does not know.
    """
    drawn = image.copy()
    pen = ImageDraw.Draw(drawn)
    width = max(2, round(_WIDTH_SHARE * min(image.size)))
    if mark.kind not in ("arrow", "box", "circle", "scribble") or len(mark.points) < 2:
        raise ValueError(f"cannot draw a mark of kind {mark.kind!r} with {len(mark.points)} points")
    match mark.kind:
        case "box":
            pen.rectangle(_corners(mark), outline=mark.color, width=width)
        case "circle":
            pen.ellipse(_corners(mark), outline=mark.color, width=width)
        case _:
            pen.line(list(mark.points), fill=mark.color, width=width, joint="curve")
    if mark.kind == "arrow":
        for end in _head(mark, _HEAD_WIDTHS * width):
            pen.line([mark.points[-1], end], fill=mark.color, width=width)
    return drawn


def _corners(mark: Mark) -> tuple[float, float, float, float]:
    xs, ys = zip(*mark.points[:2], strict=True)
    return min(xs), min(ys), max(xs), max(ys)


def _head(mark: Mark, length: float) -> list[tuple[float, float]]:
    """Where its two strokes end; they begin at the arrow's tip."""
    (from_x, from_y), (to_x, to_y) = mark.points[-2:]
    back = math.atan2(from_y - to_y, from_x - to_x)
    angles = (back - _HEAD_ANGLE, back + _HEAD_ANGLE)
    return [(to_x + length * math.cos(angle), to_y + length * math.sin(angle)) for angle in angles]
