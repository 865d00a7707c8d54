import numpy as np
import pytest

from model.nano.architecture import PATCH_PX, TILE_PX, resolutions
from model.nano.dense_targets import (
    CHARACTERS,
    COLOR_NAMES,
    IGNORED,
    NUMBER,
    SHAPE_NAMES,
    DenseTargets,
    dense_targets,
)
from model.nano.scenes import WORDS, Scene, World, render_scene
from model.tiling import TiledImage, tile_image

GRIDS = [(width, height) for width, height in resolutions()]


def of(seed: int, world: World) -> tuple[Scene, TiledImage, DenseTargets]:
    scene = render_scene(seed, world)
    image = tile_image(scene.image, GRIDS)
    return scene, image, dense_targets(scene, image.grid, tile_px=TILE_PX, patch_px=PATCH_PX)


def mosaic(cells_NP4: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
    """Cells of the local tiles, as they lie in the picture: [rows, columns]."""
    wide, high = grid
    split = cells_NP4[1:].reshape(high, wide, 8, 8, 2, 2)
    return split.transpose(0, 2, 4, 1, 3, 5).reshape(high * 16, wide * 16)


@pytest.mark.parametrize("seed", range(12))
def test_lines_can_be_read_off_the_cells_of_the_local_tiles(seed: int):
    scene, image, targets = of(seed, World(page_share=1.0, small_print_share=1.0))
    text = scene.layout.text
    assert text
    cells = mosaic(targets.chars_NP4, image.grid)
    rows = ["".join(CHARACTERS[value - 1] if value > 0 else " " for value in row) for row in cells]
    for line in scene.layout.lines:
        wanted = [char for index, char in enumerate(line) if char != " " and char not in line[:index]]
        assert any(all(char in row for char in wanted if char not in "fijlrt1") for row in rows), line


def test_every_patch_of_a_word_names_it_and_numbers_are_numbers():
    scene, _, targets = of(3, World(page_share=1.0))
    words = set(targets.words_NP.flatten().tolist()) - {0, IGNORED}
    named = {WORDS[value - 1] for value in words if value != NUMBER}
    items = scene.text.split()
    assert named == {item for item in items if not item.isdecimal()}
    assert (NUMBER in words) == any(item.isdecimal() for item in items)


@pytest.mark.parametrize("seed", range(12))
def test_every_object_is_in_the_global_view_with_its_colour_and_sides(seed: int):
    scene, _, targets = of(seed, World(page_share=0, sign_share=0))
    width, height = scene.image.size
    seen = set()
    for shape, color, sides in zip(targets.shapes_NP[0], targets.colors_NP[0], targets.sides_NP4[0], strict=True):
        if shape:
            seen.add((COLOR_NAMES[color], SHAPE_NAMES[shape - 1], *(round(float(side), 2) for side in sides)))
    x_y = np.array([1 / width, 1 / height] * 2)
    wanted = {
        (one.color, one.shape, *(round(float(side), 2) for side in np.array(one.box) * x_y)) for one in scene.objects
    }
    assert {one[:2] for one in seen} == {one[:2] for one in wanted}
    for one in wanted:
        near = [other for other in seen if other[:2] == one[:2]]
        assert min(max(abs(a - b) for a, b in zip(one[2:], other[2:], strict=True)) for other in near) < 0.03


def test_shapes_are_counted_from_the_left_where_all_of_them_can_be_seen():
    scene, _, targets = of(11, World(page_share=0, sign_share=0))
    assert len(scene.objects) > 1
    ranks = targets.ranks_NP[0]
    for rank, one in enumerate(scene.objects):
        shown = {COLOR_NAMES[color] for color in targets.colors_NP[0][ranks == rank]}
        assert shown == {one.color}
    assert set(ranks.tolist()) == {IGNORED, *range(len(scene.objects))}
    assert set(targets.ranks_NP[1:].flatten().tolist()) == {IGNORED}, "a local tile does not show the others"


def test_print_too_small_for_the_global_view_is_not_asked_for_there():
    scene, image, targets = of(5, World(page_share=1.0, small_print_share=1.0))
    assert scene.layout.text
    assert scene.layout.text.print_size == "small"
    assert image.grid != (1, 1)
    assert set(np.unique(targets.chars_NP4[0])) <= {0, IGNORED}
    assert targets.chars_NP4[1:].max() > 0


def test_targets_of_all_tiles_are_of_one_length():
    _, image, targets = of(7, World())
    for name in DenseTargets.__dataclass_fields__:
        assert len(getattr(targets, name)) == len(image.tiles), name
