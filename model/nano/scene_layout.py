"""A random stream -> the plan of one scene: its canvas, its ground, and where its shapes and its text stand.

Shapes lie wholly inside, apart from each other and from the text. Draws nothing: a shape here is the square patch that
holds it, and only its mask tells its exact box.
"""

import math
import random
from dataclasses import dataclass

from model.nano.scene_records import COLORS, SHAPES, SIZES, Box, Ground, Layout, Placement, Rgb, TextBlock
from model.nano.scene_text import choose_print, set_lines, write_lines

MIN_SIDE_PX, MAX_SIDE_PX, MAX_ASPECT = 80, 1200, 5.0

SIZE_SHARES = {"small": (0.22, 0.28), "large": (0.40, 0.50)}
"""Side of a shape's patch as a share of the canvas's short side: no shape is in between."""
GAP_SHARE = 0.03
CLEAR_SHARE = 0.05
"""Centres differ by at least this share of the short side along x, so that their order is no matter of judgement."""

LIGHT_TONES: tuple[Rgb, ...] = ((250, 250, 250), (242, 238, 228), (230, 237, 246), (232, 242, 232), (224, 224, 226))
DARK_TONES: tuple[Rgb, ...] = ((26, 28, 32), (30, 33, 46), (42, 36, 32), (26, 34, 32), (16, 16, 18))
DARK_INK, LIGHT_INK = (20, 20, 26), (246, 246, 242)
GROUND_KINDS = ("plain", "plain", "gradient", "stripes", "checks", "speckles")
NOISE_SIDE = 24

SIGN_MAX_LINES = 2
PLATE_PADDING_EM = 0.4


@dataclass(frozen=True, kw_only=True)
class World:
    """How often each kind of scene is drawn; the defaults are nano's world, others serve a curriculum."""

    page_share: float = 0.25
    """Scenes with text alone."""
    sign_share: float = 0.30
    """Scenes with shapes and a sign; the rest has shapes alone."""
    small_print_share: float = 0.5
    """Of the texts whose canvas is cut into enough tiles for print that only they show."""
    max_objects: int = 4
    max_lines: int = 8


WORLD = World()


def plan_scene(rng: random.Random, world: World = WORLD) -> Layout:
    """Objects that find no room are left out; where a plan ends up empty, another is made from the same stream."""
    while True:
        width, height = _choose_canvas(rng)
        ground, is_dark = _choose_ground(rng, min(width, height))
        kind = rng.random()
        is_page, has_sign = kind < world.page_share, kind < world.page_share + world.sign_share
        text = _place_text(rng, width, height, world, is_page=is_page, is_dark=is_dark) if has_sign else None
        placements = () if is_page else _place_objects(rng, width, height, text, world.max_objects)
        if bool(text) == has_sign and bool(placements) != is_page:
            return Layout(width=width, height=height, ground=ground, placements=placements, text=text)


def _choose_canvas(rng: random.Random) -> tuple[int, int]:
    """Every size and ratio within bounds, the small and the nearly square ones more often: half of the ratios are
    below 1.5 and half of the pictures need at most six local tiles."""
    aspect = MAX_ASPECT ** (rng.random() ** 2)
    smallest_px = MIN_SIDE_PX * aspect
    long_px = smallest_px * (MAX_SIDE_PX / smallest_px) ** (rng.random() ** 2)
    short_px = max(MIN_SIDE_PX, math.ceil(long_px / aspect))
    sides = short_px, min(math.floor(long_px), MAX_SIDE_PX, int(MAX_ASPECT * short_px))
    return sides if rng.random() < 0.5 else (sides[1], sides[0])


def _choose_ground(rng: random.Random, short_px: int) -> tuple[Ground, bool]:
    is_dark = rng.random() < 0.35
    kind = rng.choice(GROUND_KINDS)
    tones = DARK_TONES if is_dark else LIGHT_TONES
    first = rng.choice(tones)
    if kind == "gradient":
        second = rng.choice(tones)
    else:
        step = rng.randint(8, 12) if is_dark else -rng.randint(8, 16)
        second = (first[0] + step, first[1] + step, first[2] + step)
    ground = Ground(
        kind=kind,
        tones=(first, second),
        vertical=rng.random() < 0.5,
        cell_px=max(3, round(short_px * rng.uniform(0.03, 0.12))),
        noise=rng.randbytes(NOISE_SIDE * NOISE_SIDE),
    )
    return ground, is_dark


def _place_text(
    rng: random.Random, width: int, height: int, world: World, *, is_page: bool, is_dark: bool
) -> TextBlock | None:
    """None where even four characters find no room."""
    room = _page_room(width, height) if is_page else _sign_room(width, height)
    small = rng.random() < world.small_print_share
    padding_em = 0.0 if is_page else PLATE_PADDING_EM
    style = None
    for print_is_small in (small, not small):  # large print is too large for some canvases, small too small for others
        style = style or choose_print(rng, (width, height), room, small=print_is_small, padding_em=padding_em)
    if style is None:
        return None
    pad_px = math.ceil(padding_em * style.em_px)
    room = room[0] - 2 * pad_px, room[1] - 2 * pad_px
    lines = write_lines(rng, style, room, world.max_lines if is_page else min(SIGN_MAX_LINES, world.max_lines))
    block = max(map(style.width, lines)) + 2 * pad_px, style.height(len(lines)) + 2 * pad_px
    left, top = _corner(rng, (width, height), block, is_page=is_page)
    dark_plate = rng.random() < 0.3
    return TextBlock(
        lines=lines,
        positions=set_lines(rng, lines, style, left + pad_px, top + pad_px),
        font=style.font,
        em_px=style.em_px,
        print_size=style.print_size,
        ink=LIGHT_INK if (is_dark if is_page else dark_plate) else DARK_INK,
        plate=None if is_page else (left, top, left + block[0], top + block[1]),
        plate_rgb=DARK_INK if dark_plate else LIGHT_INK,
    )


def _margin(width: int, height: int) -> int:
    return max(3, round(0.04 * min(width, height)))


def _page_room(width: int, height: int) -> tuple[int, int]:
    margin = _margin(width, height)
    return width - 2 * margin, height - 2 * margin


def _sign_room(width: int, height: int) -> tuple[int, int]:
    """At most this large, a sign at an end of the canvas leaves room for a shape."""
    room = _page_room(width, height)
    if width >= 1.5 * height:
        return int(0.5 * width), room[1]
    return room[0], int(0.36 * height)


def _corner(rng: random.Random, canvas: tuple[int, int], block: tuple[int, int], *, is_page: bool) -> tuple[int, int]:
    """A page stands anywhere, a sign at an end of the longer side, so that the shapes keep the rest."""
    width, height = canvas
    margin = _margin(width, height)
    free_x, free_y = width - 2 * margin - block[0], height - 2 * margin - block[1]
    x, y = rng.random(), rng.random()
    if not is_page and width >= 1.5 * height:
        x = round(x)
    elif not is_page:
        y = round(y)
    return margin + int(x * free_x), margin + int(y * free_y)


def _place_objects(
    rng: random.Random, width: int, height: int, text: TextBlock | None, max_objects: int
) -> tuple[Placement, ...]:
    """Large ones first, since they find no room later; returned from left to right."""
    short_px = min(width, height)
    sign = text.plate if text else None
    placed: list[Placement] = []
    wanted = _choose_objects(rng, rng.randint(1, max_objects))
    for color, shape, size in sorted(wanted, key=lambda one: SIZES.index(one[2]), reverse=True):
        extent_px = round(short_px * rng.uniform(*SIZE_SHARES[size]))
        rgb = _vary(rng, COLORS[color])
        corner = _free_corner(rng, (width, height), extent_px, sign, placed)
        if corner:
            left, top = corner
            placed.append(
                Placement(color=color, shape=shape, size=size, rgb=rgb, left=left, top=top, extent_px=extent_px)
            )
    return tuple(sorted(placed, key=_center_x))


def _choose_objects(rng: random.Random, count: int) -> list[tuple[str, str, str]]:
    """(color, shape, size) each: often alike in one of them, now and then the same in all."""
    chosen: list[tuple[str, str, str]] = []
    for _ in range(count):
        color, shape, size = rng.choice(tuple(COLORS)), rng.choice(SHAPES), rng.choice(SIZES)
        if chosen:
            other, likeness = rng.choice(chosen), rng.random()
            if likeness < 0.08:
                color, shape, size = other
            elif likeness < 0.33:
                shape = other[1]
            elif likeness < 0.55:
                color = other[0]
        chosen.append((color, shape, size))
    return chosen


def _vary(rng: random.Random, rgb: Rgb) -> Rgb:
    red, green, blue = (min(255, max(0, level + rng.randint(-8, 8))) for level in rgb)
    return red, green, blue


def _free_corner(
    rng: random.Random, canvas: tuple[int, int], extent_px: int, sign: Box | None, placed: list[Placement]
) -> tuple[int, int] | None:
    short_px = min(canvas)
    gap_px = max(3, round(GAP_SHARE * short_px))
    taken = [one.patch for one in placed] + ([sign] if sign else [])
    for _ in range(60):
        left, top = (rng.randint(gap_px, side - extent_px - gap_px) for side in canvas)
        grown = left - gap_px, top - gap_px, left + extent_px + gap_px, top + extent_px + gap_px
        in_order = all(abs(left + extent_px / 2 - _center_x(one)) >= CLEAR_SHARE * short_px for one in placed)
        if in_order and not any(_overlap(grown, other) for other in taken):
            return left, top
    return None


def _center_x(placement: Placement) -> float:
    return placement.left + placement.extent_px / 2


def _overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]
