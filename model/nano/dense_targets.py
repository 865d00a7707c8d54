"""A scene and its tiles -> what each patch of each tile shows, for dense supervision of the vision encoder.

Every view of the picture (the global one, and the mosaic of local tiles) is sampled in cells of a quarter patch: the
scene knows what lies there. Knows nothing of models. Shapes: N tiles, P patches of a tile row by row; 4 cells of a
patch row by row.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from model.nano.scenes import COLORS, SHAPES, SIZES, WORDS, Box, Scene, glyph_boxes, object_map

CHARACTERS = "0123456789abcdefghijklmnopqrstuvwxyz"
IGNORED = -1
"""Not judged: print too small for the view, or an object's attributes where there is none."""
LEGIBLE_EM_PX = 12.0
"""Print smaller than this in a view is not asked for there."""

COLOR_NAMES = tuple(COLORS)
SHAPE_NAMES = (*SHAPES, "sign")
NUMBER = 1 + len(WORDS)
_WORD_INDEX = {word: 1 + index for index, word in enumerate(WORDS)}
_CELLS_PER_PATCH = 2


@dataclass(frozen=True, kw_only=True)
class DenseTargets:
    """int64 but for the sides; 0 means that nothing is there.

    chars_NP4: 1 + index in CHARACTERS. words_NP: 1 + index in WORDS, or NUMBER. shapes_NP: 1 + index in SHAPE_NAMES.
    colors_NP: index in COLOR_NAMES, sizes_NP: index in SIZES, both IGNORED away from shapes.
    ranks_NP: which of the shapes it is, counted from the left; IGNORED away from shapes and on local tiles, which do
    not show the others.
    sides_NP4: float32 x1, y1, x2, y2 of the object or sign at the patch, clipped to what the tile shows of the
    picture (not of the padding) and relative to it, so that on the global view they are shares of the picture.
    """

    chars_NP4: np.ndarray
    words_NP: np.ndarray
    shapes_NP: np.ndarray
    colors_NP: np.ndarray
    sizes_NP: np.ndarray
    ranks_NP: np.ndarray
    sides_NP4: np.ndarray


@dataclass(frozen=True, kw_only=True)
class _View:
    """The picture scaled and centred on a mosaic of tiles, as `model.tiling` does it; lengths in mosaic pixels."""

    grid: tuple[int, int]
    scale_x: float
    scale_y: float
    left: int
    top: int
    inner_width: int
    inner_height: int


def dense_targets(scene: Scene, grid: tuple[int, int], *, tile_px: int, patch_px: int) -> DenseTargets:
    """Targets for all tiles of a scene: the global view's, then the local ones' row by row."""
    objects = object_map(scene.layout)
    views = [_view(scene, grid_of_view, tile_px) for grid_of_view in ((1, 1), grid)]
    parts = [_view_targets(scene, objects, view, tile_px, patch_px) for view in views]
    parts[1]["ranks_NP"] = np.full_like(parts[1]["ranks_NP"], IGNORED)
    return DenseTargets(**{name: np.concatenate([part[name] for part in parts]) for name in parts[0]})


def _view(scene: Scene, grid: tuple[int, int], tile_px: int) -> _View:
    width, height = grid[0] * tile_px, grid[1] * tile_px
    canvas_width, canvas_height = scene.image.size
    scale = min(width / canvas_width, height / canvas_height)
    inner_width, inner_height = max(1, round(canvas_width * scale)), max(1, round(canvas_height * scale))
    return _View(
        grid=grid,
        scale_x=inner_width / canvas_width,
        scale_y=inner_height / canvas_height,
        left=round((width - inner_width) / 2),
        top=round((height - inner_height) / 2),
        inner_width=inner_width,
        inner_height=inner_height,
    )


def _view_targets(scene: Scene, objects: np.ndarray, view: _View, tile_px: int, patch_px: int) -> dict[str, np.ndarray]:
    cell_px = patch_px / _CELLS_PER_PATCH
    cells_high, cells_wide = (round(side * tile_px / cell_px) for side in (view.grid[1], view.grid[0]))
    things = _things(scene, objects, view, cells_wide, cells_high, cell_px)
    chars, words = _text(scene, view, cells_wide, cells_high, cell_px)
    side = tile_px // patch_px
    things_NP, words_NP = _main(_by_tile(things, side)), _main(_by_tile(words, side))
    shapes = np.array([0, *(1 + SHAPES.index(one.shape) for one in scene.objects), len(SHAPE_NAMES)])
    colors = np.array([IGNORED, *(COLOR_NAMES.index(one.color) for one in scene.objects), IGNORED])
    sizes = np.array([IGNORED, *(SIZES.index(one.size) for one in scene.objects), IGNORED])
    ranks = np.array([IGNORED, *range(len(scene.objects)), IGNORED])
    return {
        "chars_NP4": _by_tile(chars, side),
        "words_NP": words_NP,
        "shapes_NP": shapes[things_NP],
        "colors_NP": colors[things_NP],
        "sizes_NP": sizes[things_NP],
        "ranks_NP": ranks[things_NP],
        "sides_NP4": _sides(scene, view, things_NP, tile_px),
    }


def _things(
    scene: Scene, objects: np.ndarray, view: _View, cells_wide: int, cells_high: int, cell_px: float
) -> np.ndarray:
    """[cells_high, cells_wide]: 0, 1 + index of the object, or 1 + number of objects for the sign. The cell of an
    object's centre is its own, however small it is."""
    height, width = objects.shape
    x = ((np.arange(cells_wide) + 0.5) * cell_px - view.left) / view.scale_x
    y = ((np.arange(cells_high) + 0.5) * cell_px - view.top) / view.scale_y
    columns, rows = x.astype(int).clip(0, width - 1), y.astype(int).clip(0, height - 1)
    inside = ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))[None, :]
    sampled = np.where(inside, objects[rows[:, None], columns[None, :]], 0).astype(np.int64)
    if scene.layout.sign_box:
        _fill(sampled, scene.layout.sign_box, view, cell_px, 1 + len(scene.objects))
    for index, one in enumerate(scene.objects):
        center_x, center_y = one.center
        column = int((center_x * view.scale_x + view.left) / cell_px)
        row = int((center_y * view.scale_y + view.top) / cell_px)
        sampled[row, column] = 1 + index
    return sampled


def _text(scene: Scene, view: _View, cells_wide: int, cells_high: int, cell_px: float) -> tuple[np.ndarray, np.ndarray]:
    """(characters, words), each [cells_high, cells_wide]."""
    chars = np.zeros((cells_high, cells_wide), np.int64)
    words = np.zeros((cells_high, cells_wide), np.int64)
    block = scene.layout.text
    if block is None:
        return chars, words
    legible = block.em_px * view.scale_y >= LEGIBLE_EM_PX
    for char, word, box in _characters(scene):
        _fill(chars, box, view, cell_px, 1 + CHARACTERS.index(char) if legible else IGNORED)
        _fill(words, box, view, cell_px, _WORD_INDEX.get(word, NUMBER) if legible else IGNORED)
    return chars, words


def _characters(scene: Scene) -> Iterator[tuple[str, str, Box]]:
    """Every character with the word or number it belongs to and its cell."""
    block = scene.layout.text
    assert block is not None
    words = (word for line in block.lines for word in line.split() for _ in word)
    for (char, box), word in zip(glyph_boxes(block), words, strict=True):
        yield char, word, box


def _fill(cells: np.ndarray, box: Box, view: _View, cell_px: float, value: int) -> None:
    """Sets the cells whose centres lie in a box of the picture."""
    x1, x2 = (x * view.scale_x + view.left for x in (box[0], box[2]))
    y1, y2 = (y * view.scale_y + view.top for y in (box[1], box[3]))
    columns = slice(max(0, round(x1 / cell_px)), max(0, round(x2 / cell_px)))
    rows = slice(max(0, round(y1 / cell_px)), max(0, round(y2 / cell_px)))
    cells[rows, columns] = value


def _by_tile(cells: np.ndarray, patches_per_side: int) -> np.ndarray:
    """[cells_high, cells_wide] -> [N, P, 4]."""
    c, s = _CELLS_PER_PATCH, patches_per_side
    rows, columns = (length // (c * s) for length in cells.shape)
    split = cells.reshape(rows, s, c, columns, s, c).transpose(0, 3, 1, 4, 2, 5)
    return split.reshape(rows * columns, s * s, c * c)


def _main(cells_NP4: np.ndarray) -> np.ndarray:
    """[N, P]: of a patch's cells the value that most of those have that are not empty; 0 where all are."""
    counts = (cells_NP4[..., :, None] == cells_NP4[..., None, :]).sum(-1) * (cells_NP4 != 0)
    return np.take_along_axis(cells_NP4, counts.argmax(-1)[..., None], -1)[..., 0]


def _sides(scene: Scene, view: _View, things_NP: np.ndarray, tile_px: int) -> np.ndarray:
    boxes = [(0, 0, 0, 0), *(one.box for one in scene.objects), scene.layout.sign_box or (0, 0, 0, 0)]
    scale = np.array([view.scale_x, view.scale_y] * 2)
    on_mosaic = np.array(boxes) * scale + np.array([view.left, view.top] * 2)
    corners = [(column * tile_px, row * tile_px) for row in range(view.grid[1]) for column in range(view.grid[0])]
    low = np.maximum(np.array(corners), [view.left, view.top])
    high = np.minimum(np.array(corners) + tile_px, [view.left + view.inner_width, view.top + view.inner_height])
    low_N4, extent_N4 = np.tile(low, 2), np.maximum(np.tile(high - low, 2), 1)
    relative_NB4 = (on_mosaic[None] - low_N4[:, None]) / extent_N4[:, None]
    tiles = np.arange(len(corners))[:, None]
    return relative_NB4[tiles, things_NP].clip(0, 1).astype(np.float32)
