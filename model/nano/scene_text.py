"""Room on a canvas -> lines of words and numbers that fit it, in a font and a size that suit a checkpoint's tiles.

Print is sized by what the model sees, not by canvas pixels: a canvas is scaled to 112 px for the global view, and to a
grid of up to 9 tiles of 112 px for the local ones. Knows nothing of shapes, nor of where the lines will stand.
"""

import functools
import math
import random
from dataclasses import dataclass
from pathlib import Path

from PIL import ImageFont

from model.nano.scene_records import WORDS, Box, TextBlock

TILE_PX = 112
MAX_TILES = 9
GRIDS = [(w, h) for w in range(1, MAX_TILES + 1) for h in range(1, MAX_TILES + 1) if w * h <= MAX_TILES]

FONTS_FOLDER = Path(__file__).parent / "fonts"
FONTS = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif")

SMALL_PRINT_GLOBAL_PX = 6.5
"""A letter with its ascender and descender is an em high: below this, an x is 3.5 px high in the global view."""
SMALL_PRINT_LOCAL_PX = (18.0, 24.0)
LARGE_PRINT_LOCAL_PX = (20.0, 30.0)
LARGE_PRINT_GLOBAL_PX = (8.0, 11.0)

ASCENT_EM, DESCENT_EM = 0.80, 0.26
MAX_CHAR_EM = 0.66
"""Digits of the widest font take 0.64 em; the short words take less on average."""
MIN_CHARS, MAX_CHARS = 4, 18
NUMBER_SHARE = 0.25


@dataclass(frozen=True, kw_only=True)
class Print:
    """How text is set; `pitch_px` from baseline to baseline."""

    font: str
    em_px: int
    pitch_px: int
    print_size: str

    def width(self, text: str) -> int:
        return math.ceil(load_font(self.font, self.em_px).getlength(text))

    def height(self, num_lines: int) -> int:
        return self.ascent_px + (num_lines - 1) * self.pitch_px + math.ceil(DESCENT_EM * self.em_px)

    @property
    def ascent_px(self) -> int:
        return math.ceil(ASCENT_EM * self.em_px)


@functools.lru_cache(maxsize=256)
def load_font(name: str, em_px: int) -> ImageFont.FreeTypeFont:
    """Basic layout: the other engine is a system library that some platforms lack, and spaces letters otherwise."""
    return ImageFont.truetype(FONTS_FOLDER / f"{name}.ttf", em_px, layout_engine=ImageFont.Layout.BASIC)


def view_scales(width: int, height: int) -> tuple[float, float]:
    """(scale of the global view, scale of the local tiles) of a canvas, both as tile pixels per canvas pixel."""
    fits = [(min(w * TILE_PX / width, h * TILE_PX / height), w * h) for w, h in GRIDS]
    whole = [(num_tiles, scale) for scale, num_tiles in fits if scale >= 1]
    local = min(whole)[1] if whole else max(fits)[0]
    return TILE_PX / max(width, height), local


def choose_print(
    rng: random.Random, canvas: tuple[int, int], room: tuple[int, int], *, small: bool, padding_em: float = 0.0
) -> Print | None:
    """Print, small or large, in which four characters with padding all around fit the room; None where none does."""
    global_scale, local_scale = view_scales(*canvas)
    ratio = local_scale / global_scale
    if small:
        low, high = SMALL_PRINT_LOCAL_PX[0], min(SMALL_PRINT_LOCAL_PX[1], SMALL_PRINT_GLOBAL_PX * ratio)
    else:
        low = max(LARGE_PRINT_LOCAL_PX[0], LARGE_PRINT_GLOBAL_PX[0] * ratio)
        high = max(LARGE_PRINT_LOCAL_PX[1], LARGE_PRINT_GLOBAL_PX[1] * ratio)
    width_em = MIN_CHARS * MAX_CHAR_EM + 2 * padding_em
    height_em = ASCENT_EM + DESCENT_EM + 2 * padding_em
    high = min(high, min(room[0] / width_em, room[1] / height_em) * local_scale)
    if low > high:
        return None
    em_px = int(rng.uniform(low, high) / local_scale)
    pitch_px = math.ceil(em_px * rng.uniform(1.25, 1.6))
    return Print(font=rng.choice(FONTS), em_px=em_px, pitch_px=pitch_px, print_size="small" if small else "large")


def write_lines(rng: random.Random, style: Print, room: tuple[int, int], max_lines: int) -> tuple[str, ...]:
    """One to `max_lines` lines that fit the room, none empty."""
    fitting = 1 + (room[1] - style.height(1)) // style.pitch_px
    num_lines = rng.randint(1, max(1, min(max_lines, fitting)))
    return tuple(_write_line(rng, style, room[0]) for _ in range(num_lines))


def _write_line(rng: random.Random, style: Print, room_px: int) -> str:
    items = [_word_or_number(rng) for _ in range(rng.choice((1, 2, 2, 3)))]
    while items and not _fits(" ".join(items), style, room_px):
        items.pop()
    return " ".join(items) if items else _short_item(rng)


def _fits(text: str, style: Print, room_px: int) -> bool:
    return len(text) <= MAX_CHARS and style.width(text) <= room_px


def _word_or_number(rng: random.Random) -> str:
    return _number(rng) if rng.random() < NUMBER_SHARE else rng.choice(WORDS)


def _number(rng: random.Random) -> str:
    """0 to 9999, every number of digits as likely as another."""
    num_digits = rng.randint(1, 4)
    return str(rng.randrange(10 ** (num_digits - 1) if num_digits > 1 else 0, 10**num_digits))


def _short_item(rng: random.Random) -> str:
    short = [word for word in WORDS if len(word) <= MIN_CHARS - 1]
    return rng.choice(short) if rng.random() < 0.7 else _number(rng)


def set_lines(
    rng: random.Random, lines: tuple[str, ...], style: Print, left: int, top: int
) -> tuple[tuple[int, int], ...]:
    """Baselines of a block whose corner is (left, top): flush left, or each line centred."""
    widths = [style.width(line) for line in lines]
    centred = rng.random() < 0.3
    return tuple(
        (left + ((max(widths) - width) // 2 if centred else 0), top + style.ascent_px + index * style.pitch_px)
        for index, width in enumerate(widths)
    )


def glyph_boxes(block: TextBlock) -> list[tuple[str, Box]]:
    """Every character but spaces, in reading order, with its cell: its advance wide, ascender to descender high.

    For dense supervision of a vision encoder, patch by patch.
    """
    font = load_font(block.font, block.em_px)
    above, below = math.ceil(ASCENT_EM * block.em_px), math.ceil(DESCENT_EM * block.em_px)
    boxes = []
    for line, (left, baseline) in zip(block.lines, block.positions, strict=True):
        ends = [left + round(font.getlength(line[:index])) for index in range(len(line) + 1)]
        boxes += [
            (char, (ends[index], baseline - above, ends[index + 1], baseline + below))
            for index, char in enumerate(line)
            if char != " "
        ]
    return boxes
