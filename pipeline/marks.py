"""An image and a mark -> a copy of the image with the mark drawn in: an arrow, a box, a circle or a scribble.

Coordinates are pixels of the image as it is given, from its top left corner; what lies outside of it is cut off. Does
not know what a mark is for.
"""

import itertools
import math
from collections.abc import Iterator, Sequence

from PIL import Image, ImageColor, ImageDraw

from schemas.errors import ErrorKind, RowFailure
from schemas.rows import Mark

_KINDS = ("arrow", "box", "circle", "scribble")
_MAX_COORDINATE_PX = 1e7
"""Far outside of any image; what is farther would overflow the drawing."""
_WIDTHS_PER_SIDE = 120
"""So many lines side by side fill an image, which keeps them visible when it is scaled to a tile."""
_HEAD_WIDTHS = 6
"""Length of an arrow's head in widths of its line, where the arrow is long enough."""
_CIRCLE_SEGMENTS = 360

_Point = tuple[float, float]


def draw_mark(image: Image.Image, mark: Mark) -> Image.Image:
    """An RGB image of the same size; the line's width follows from that size.

    Raises:
        RowFailure: BAD_MARK for an unknown kind or color, points that are too few, too many or no numbers, a mark
            without extent, or one of which nothing lies inside of the image.
    """
    color = _color_of(mark)
    points = _points_of(mark)
    width_px = max(1, round(math.sqrt(image.width * image.height) / _WIDTHS_PER_SIDE))
    line = _line(mark.kind, points)
    if not any(True for _ in _clipped(line, image.size, margin=0)):
        raise _bad(mark, f"no part of it lies inside of the image, which has {image.width}x{image.height} pixels")
    head = _head(points, width_px) if mark.kind == "arrow" else []
    if head:
        line = [points[0], head[0]]  # a line up to the tip would blunt it
    drawn = image.copy()
    draw = ImageDraw.Draw(drawn)
    # Clipped again with room for the line's width: a line along the border keeps the half of it that is inside.
    for start, end in _clipped(line, image.size, margin=2 * width_px):
        _draw_segment(draw, _inside(start, image.size), _inside(end, image.size), width_px, color)
    if head:
        draw.polygon([_inside(corner, image.size) for corner in head[1:]], fill=color, outline=color)
    return drawn


def _color_of(mark: Mark) -> tuple[int, ...]:
    name = mark.color.strip().lower()
    if name not in ImageColor.colormap:
        raise _bad(mark, f"its color {mark.color[:40]!r} has no name that is known: use one of CSS, such as red")
    return ImageColor.getrgb(name)


def _points_of(mark: Mark) -> list[_Point]:
    if mark.kind not in _KINDS:
        raise _bad(mark, f"there is no such kind: use one of {', '.join(_KINDS)}")
    points, is_line = list(mark.points), mark.kind == "scribble"
    if len(points) < 2 or (len(points) > 2 and not is_line):
        raise _bad(mark, f"it has {len(points)} points, but needs {'2 or more' if is_line else '2'}")
    for value in (value for point in points for value in point):
        if not abs(value) <= _MAX_COORDINATE_PX:  # "not": NaN is no place either
            raise _bad(mark, f"{value:g} is no coordinate in pixels")
    (x1, y1), (x2, y2) = points[:2]
    if mark.kind in ("box", "circle") and (x1 == x2 or y1 == y2):
        raise _bad(mark, "its two corners span no area")
    if mark.kind == "arrow" and (x1, y1) == (x2, y2):
        raise _bad(mark, "its two ends are the same point")
    return points


def _bad(mark: Mark, reason: str) -> RowFailure:
    return RowFailure(ErrorKind.BAD_MARK, f"the mark {mark.kind[:40]!r} cannot be drawn: {reason}")


def _line(kind: str, points: Sequence[_Point]) -> list[_Point]:
    """The points that the mark's line runs through."""
    (x1, y1), (x2, y2) = points[:2]
    if kind == "box":
        return [(x1, y1), (x2, y1), (x2, y2), (x1, y2), (x1, y1)]
    if kind == "circle":
        turns = [2 * math.pi * step / _CIRCLE_SEGMENTS for step in range(_CIRCLE_SEGMENTS + 1)]
        x, y, half_width, half_height = (x1 + x2) / 2, (y1 + y2) / 2, (x2 - x1) / 2, (y2 - y1) / 2
        return [(x + half_width * math.cos(turn), y + half_height * math.sin(turn)) for turn in turns]
    return list(points)


def _head(points: Sequence[_Point], width_px: int) -> list[_Point]:
    """Of an arrow's head: the middle of its base, its two corners, and its tip."""
    (x1, y1), (x2, y2) = points
    length = math.hypot(x2 - x1, y2 - y1)
    right, down = (x2 - x1) / length, (y2 - y1) / length
    head = min(_HEAD_WIDTHS * width_px, length / 2)
    base = (x2 - head * right, y2 - head * down)
    half = max(head / 2, 1.0)
    corners = [(base[0] - sign * half * down, base[1] + sign * half * right) for sign in (1, -1)]
    return [base, *corners, (x2, y2)]


def _draw_segment(draw: ImageDraw.ImageDraw, start: _Point, end: _Point, width_px: int, color: tuple[int, ...]) -> None:
    """With round ends, so that segments meet without gaps."""
    draw.line([start, end], fill=color, width=width_px)
    if width_px > 2:
        radius = (width_px - 1) / 2
        for x, y in (start, end):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=color)


def _inside(point: _Point, size: tuple[int, int]) -> _Point:
    """The far borders belong to the image, but no pixel begins there."""
    x, y = point
    width, height = size
    return (width - 1 if width - 1 < x <= width else x), (height - 1 if height - 1 < y <= height else y)


def _clipped(line: Sequence[_Point], size: tuple[int, int], *, margin: float) -> Iterator[tuple[_Point, _Point]]:
    """What of the line's segments lies inside of the image and a margin around it."""
    for (x1, y1), (x2, y2) in itertools.pairwise(line):
        begin, stop = 0.0, 1.0
        for origin, delta, side in ((x1, x2 - x1, size[0]), (y1, y2 - y1, size[1])):
            if delta == 0:
                begin, stop = (begin, stop) if -margin <= origin <= side + margin else (1.0, 0.0)
                continue
            near, far = sorted(((-margin - origin) / delta, (side + margin - origin) / delta))
            begin, stop = max(begin, near), min(stop, far)
        if begin <= stop:
            yield (
                (x1 + begin * (x2 - x1), y1 + begin * (y2 - y1)),
                (x1 + stop * (x2 - x1), y1 + stop * (y2 - y1)),
            )
