"""Files decoded in this process, as a decoding process does it, and what tests measure in the pixels."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.decode import DecodedImage, decode_image
from schemas.errors import RowError, RowFailure
from tests.pipeline.pictures import corners_of

REPOSITORY = Path(__file__).parents[2]


def decode(encoded: bytes, max_pixels: int = 10_000_000) -> DecodedImage:
    return decode_image(encoded, max_pixels=max_pixels, min_decoded_fraction=0.9)


def failure(encoded: bytes, max_pixels: int = 10_000_000) -> RowError:
    with pytest.raises(RowFailure) as caught:
        decode(encoded, max_pixels)
    assert "\n" not in caught.value.error.message
    return caught.value.error


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image).astype(int)


def farthest(image: Image.Image, colours: tuple[tuple[int, int, int], ...]) -> int:
    return int(np.abs(np.subtract(corners_of(image), colours)).max())
