"""Pictures to look at are the pixels that a decoder gives, and are decoded where a decoder does no harm."""

import numpy as np
import pytest
from PIL import Image

from pipeline import previews
from pipeline.previews import Preview, large_preview
from schemas.errors import ErrorKind, RowError
from schemas.job import LimitsSpec
from tests.pipeline.pictures import encode

LIMITS = LimitsSpec()


def noise(width: int, height: int) -> Image.Image:
    pixels = np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(pixels)


@pytest.mark.parametrize("size", [(61, 40), (40, 61), (50, 50), (400, 3)])
def test_large_preview_has_the_image_s_own_pixels(size: tuple[int, int]):
    picture = noise(*size)
    seen = large_preview(encode(picture, "PNG"), LIMITS, width_px=size[0], height_px=size[1])
    assert isinstance(seen, Preview)
    assert (seen.width_px, seen.height_px) == size
    np.testing.assert_array_equal(seen.pixels, np.asarray(picture))


def test_large_preview_of_a_larger_image_is_made_smaller(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(previews, "MAX_SIDE_PX", 50)
    seen = large_preview(encode(noise(200, 100), "PNG"), LIMITS, width_px=200, height_px=100)
    assert isinstance(seen, Preview)
    assert (seen.pixels.shape, seen.width_px, seen.height_px) == ((25, 50, 3), 200, 100)


def test_image_that_cannot_be_decoded_is_an_error_as_of_a_run():
    seen = large_preview(encode(noise(60, 40), "PNG")[:200], LIMITS, width_px=60, height_px=40)
    assert isinstance(seen, RowError)
    assert seen.kind is ErrorKind.TRUNCATED
