"""Grids and tiles are the reference's, bit for bit.

600 image sizes of the released candidate list, 30 of them chosen because exact arithmetic picks another grid.
"""

import hashlib
import json

import numpy as np
import pytest
from PIL import Image

from model.config_files import load_processor_config
from model.tiling import select_resolution, tile_image
from tests import golden

RESOLUTIONS = json.loads((golden.FOLDER / "resolutions.json").read_text())


def test_every_golden_size_gets_the_resolution_of_the_reference():
    candidates = [tuple(pair) for pair in RESOLUTIONS["candidate_resolutions"]]
    wrong = [
        (width, height)
        for width, height, *expected, _ in RESOLUTIONS["rows"]
        if select_resolution(width, height, candidates) != tuple(expected)
    ]
    assert len(RESOLUTIONS["rows"]) == 600
    assert wrong == []


def test_every_golden_size_gets_as_many_image_tokens_as_in_the_reference():
    config = load_processor_config(golden.checkpoint_folder("base-like"))
    for _, _, best_width, best_height, image_tokens in RESOLUTIONS["rows"]:
        assert config.num_image_tokens((best_width // 384, best_height // 384)) == image_tokens


@pytest.mark.parametrize("size", [70, 84])
def test_other_tile_sizes_get_the_resolution_of_the_reference(size: int):
    candidates = [(w * size // 384, h * size // 384) for w, h in RESOLUTIONS["candidate_resolutions"]]
    for width, height, *expected in RESOLUTIONS["other_bases"][str(size)]:
        assert select_resolution(width, height, candidates) == tuple(expected), (width, height)


@pytest.mark.parametrize("checkpoint", golden.CHECKPOINTS)
def test_every_tile_of_every_golden_conversation_has_the_pixels_of_the_reference(checkpoint: str):
    for case, expected in golden.conversations(checkpoint).items():
        if not expected["pil_sizes"]:
            continue  # the reference feeds an all-zero tile for text, which we do not encode at all
        prompt = golden.prompt(checkpoint, case)
        pixels = (
            prompt.tiles.transpose(0, 3, 1, 2).astype(np.float32) / np.float32(255) - np.float32(0.5)
        ) / np.float32(0.5)
        assert [_sha256(tile) for tile in pixels] == expected["tile_sha256"], case
        assert [list(grid) for grid in prompt.grids] == expected["images_spatial_crop"], case


@pytest.mark.parametrize("checkpoint", ["tiny-like", "extra70-like", "extra84-like"])
def test_tiles_kept_whole_are_equal_pixel_by_pixel(checkpoint: str):
    with np.load(golden.FOLDER / "processor" / f"{checkpoint}_tiles.npz") as tiles:
        for name, expected_chw in tiles.items():
            case, index = name.removesuffix("_u8").split("__tile")
            actual = golden.prompt(checkpoint, case).tiles[int(index)]
            np.testing.assert_array_equal(actual, expected_chw.transpose(1, 2, 0), err_msg=name)


@pytest.mark.parametrize("size", [(2000, 1), (1, 2000), (5000, 2)], ids=str)
def test_image_too_thin_for_the_reference_keeps_one_pixel_of_its_short_side(size: tuple[int, int]):
    tiled = tile_image(Image.new("RGB", size, "red"), [(384, 384)])
    assert (tiled.tiles[0] == (255, 0, 0)).all(axis=-1).any()


def test_image_of_another_mode_is_refused_with_advice():
    with pytest.raises(ValueError, match="mode 'L'"):
        tile_image(Image.new("L", (8, 8)), [(384, 384)])


def _sha256(tile: np.ndarray) -> str:
    return hashlib.sha256(np.ascontiguousarray(tile).tobytes()).hexdigest()
