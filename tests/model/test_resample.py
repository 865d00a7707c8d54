"""Pictures on a mosaic have Pillow's pixels, whichever of the two ways scaled them."""

import random

import numpy as np
import pytest
from PIL import Image

from model import resample
from model.resample import Place, scale_onto

TILE_PX, GREY = 48, 127


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    """Every level beside every other: the most that rounding and clipping can be asked for."""
    levels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(np.where(levels < 64, 0, np.where(levels > 192, 255, levels)).astype(np.uint8))


def mosaic(image: Image.Image, place: Place, *, tiles_wide: int, tiles_high: int) -> np.ndarray:
    tiles = np.full((tiles_wide * tiles_high, TILE_PX, TILE_PX, 3), GREY, np.uint8)
    scale_onto(tiles, tiles_wide, image, place)
    rows = tiles.reshape(tiles_high, tiles_wide, TILE_PX, TILE_PX, 3).swapaxes(1, 2)
    return rows.reshape(tiles_high * TILE_PX, tiles_wide * TILE_PX, 3)


def by_pillow(image: Image.Image, place: Place, *, tiles_wide: int, tiles_high: int) -> np.ndarray:
    canvas = Image.new("RGB", (tiles_wide * TILE_PX, tiles_high * TILE_PX), (GREY,) * 3)
    canvas.paste(image.resize((place.width, place.height), Image.Resampling.BICUBIC), (place.left, place.top))
    return np.asarray(canvas)


SIZES = [(1, 1), (1, 400), (400, 1), (2, 3), (17, 90), (96, 48), (95, 97), (144, 144), (333, 200), (1201, 37)]


@pytest.fixture(params=["C", "Pillow"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param == "Pillow":
        monkeypatch.setattr(resample, "native", lambda: None)
    elif resample.native() is None:
        pytest.skip("resample.c was not built: no C compiler when the package was installed")
    return request.param


@pytest.mark.parametrize("size", SIZES, ids=lambda size: f"{size[0]}x{size[1]}")
def test_picture_of_any_size_gets_pillows_pixels_at_any_place(way: str, size: tuple[int, int]):
    image, rng = noise(*size), random.Random(str(size))
    places = [Place(left=0, top=0, width=3 * TILE_PX, height=2 * TILE_PX), Place(left=143, top=95, width=1, height=1)]
    for _ in range(20):
        width, height = rng.randint(1, 3 * TILE_PX), rng.randint(1, 2 * TILE_PX)
        left, top = rng.randint(0, 3 * TILE_PX - width), rng.randint(0, 2 * TILE_PX - height)
        places.append(Place(left=left, top=top, width=width, height=height))
    for place in places:
        found = mosaic(image, place, tiles_wide=3, tiles_high=2)
        wanted = by_pillow(image, place, tiles_wide=3, tiles_high=2)
        assert np.array_equal(found, wanted), (place, np.abs(found.astype(int) - wanted).max())


def test_large_picture_is_scaled_band_by_band_to_the_same_pixels(way: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(resample, "_BAND_PX", 201 * 7)  # seven rows, of which the last band has three
    place = Place(left=3, top=0, width=90, height=48)
    image = noise(201, 94)
    found = mosaic(image, place, tiles_wide=2, tiles_high=1)
    assert np.array_equal(found, by_pillow(image, place, tiles_wide=2, tiles_high=1))


def test_picture_that_is_kept_as_it_is_is_copied(way: str):
    image, place = noise(70, 40), Place(left=13, top=4, width=70, height=40)
    found = mosaic(image, place, tiles_wide=2, tiles_high=1)
    assert np.array_equal(found[4:44, 13:83], np.asarray(image))
    assert (found[:4] == GREY).all()
    assert (found[:, 83:] == GREY).all()


@pytest.mark.parametrize(
    "place",
    [
        Place(left=0, top=0, width=97, height=48),
        Place(left=1, top=0, width=96, height=48),
        Place(left=0, top=1, width=96, height=48),
        Place(left=-1, top=0, width=96, height=48),
        Place(left=0, top=-1, width=96, height=48),
    ],
    ids=["too wide", "too far right", "too far down", "left of it", "above it"],
)
def test_nothing_is_written_beside_the_mosaic(way: str, place: Place):
    with pytest.raises(ValueError, match="is not on 2 tiles of 48 px in rows of 2"):
        mosaic(noise(20, 20), place, tiles_wide=2, tiles_high=1)
