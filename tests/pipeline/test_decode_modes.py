"""One picture is the same whatever mode it is stored in, and photographs are as Pillow shows them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.decode import EXIF_ROTATED
from pipeline.to_rgb import ALPHA_COMPOSITED, SCALED_16BIT
from tests.pipeline.decoding import REPOSITORY, decode, pixels

pytestmark = pytest.mark.usefixtures("pillow_settings_stay")

GOLDEN = REPOSITORY / "tests" / "golden_data" / "images"
PHOTOGRAPHS = sorted(path for path in (REPOSITORY.parent / "shared" / "images").glob("*.*"))


class TestOnePictureInManyModes:
    """The golden images hold the same picture in other modes; what they share must come out the same."""

    @staticmethod
    def golden(name: str) -> tuple[np.ndarray, tuple[str, ...]]:
        decoded = decode((GOLDEN / f"{name}.png").read_bytes())
        return pixels(decoded.image), decoded.flags

    @staticmethod
    def stored(name: str) -> np.ndarray:
        return pixels(Image.open(GOLDEN / f"{name}.png"))

    def test_grey_of_16_bits_equals_grey_of_8_bits(self):
        deep, flags = self.golden("mode_i16")

        assert flags == (SCALED_16BIT,)
        assert (deep == self.golden("mode_l")[0]).all()

    def test_grey_with_alpha_is_the_grey_on_white(self):
        grey, alpha = self.golden("mode_l")[0], self.stored("mode_la")[..., 1:] / 255

        shown, flags = self.golden("mode_la")
        assert flags == (ALPHA_COMPOSITED,)
        assert np.abs(shown - (grey * alpha + 255 * (1 - alpha))).max() <= 1

    def test_colour_with_alpha_has_the_brightness_of_grey_with_alpha(self):
        colour, _ = self.golden("mode_rgba")

        brightness = colour @ [0.299, 0.587, 0.114]
        assert np.abs(brightness - self.golden("mode_la")[0][..., 0]).max() <= 2

    def test_turned_photograph_is_the_upright_one(self):
        turned, flags = self.golden("exif_orientation6")

        assert flags == (EXIF_ROTATED,)
        assert turned.shape == (150, 91, 3)
        assert (np.rot90(turned) == self.stored("mode_rgba")[..., :3]).all()

    def test_palette_shows_the_colours_it_approximates(self):
        palette, flags = self.golden("mode_p")

        assert flags == ()
        assert np.abs(palette - self.stored("mode_rgba")[..., :3]).mean() < 20

    def test_transparent_index_becomes_white_and_nothing_else_changes(self):
        opaque, shown = self.golden("mode_p")[0], self.golden("mode_p_transparent")[0]

        hidden = self.stored("mode_p_transparent") == 3
        assert hidden.any()
        assert (shown[hidden] == 255).all()
        assert (shown[~hidden] == opaque[~hidden]).all()

    def test_black_and_white_has_about_the_same_brightness(self):
        bilevel, _ = self.golden("mode_1")

        assert set(np.unique(bilevel)) == {0, 255}
        assert abs(bilevel.mean() - self.golden("mode_l")[0].mean()) < 2


@pytest.mark.skipif(not PHOTOGRAPHS, reason="needs the photographs in ../shared/images")
@pytest.mark.parametrize("path", PHOTOGRAPHS, ids=lambda path: path.name)
def test_photograph_is_decoded_as_pillow_shows_it(path: Path):
    decoded = decode(path.read_bytes(), max_pixels=200_000_000)

    with Image.open(path) as image:
        if EXIF_ROTATED in decoded.flags or ALPHA_COMPOSITED in decoded.flags:
            assert sorted(decoded.image.size) == sorted(image.size)
        else:
            assert (np.asarray(decoded.image) == np.asarray(image.convert("RGB"))).all()
