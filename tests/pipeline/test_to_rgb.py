import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.to_rgb import ALPHA_COMPOSITED, RANGE_STRETCHED, SCALED_16BIT, to_rgb

HALF_RED_ON_WHITE = (255, 127, 127)


def rgb_pixels(image: Image.Image) -> list[tuple[int, ...]]:
    converted, _ = to_rgb(image)
    assert converted.mode == "RGB"
    return [tuple(int(level) for level in pixel) for pixel in np.asarray(converted).reshape(-1, 3)]


def flags_of(image: Image.Image) -> tuple[str, ...]:
    return to_rgb(image)[1]


def row_of(mode: str, values: list, dtype: str) -> Image.Image:
    """One row of pixels in a mode that numpy arrays map to."""
    array = np.array([values], dtype=dtype)
    image = Image.frombytes(mode, (len(values), 1), array.tobytes())
    assert image.mode == mode
    return image


def solid(mode: str, *pixels: int | tuple[int, ...]) -> Image.Image:
    image = Image.new(mode, (len(pixels), 1))
    for x, pixel in enumerate(pixels):
        image.putpixel((x, 0), pixel)
    return image


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(solid("RGB", (10, 20, 30)), (10, 20, 30), id="RGB"),
        pytest.param(solid("L", 77), (77, 77, 77), id="L"),
        pytest.param(solid("1", 1), (255, 255, 255), id="1"),
        pytest.param(solid("CMYK", (0, 255, 255, 0)), (255, 0, 0), id="CMYK"),
        pytest.param(solid("HSV", (85, 255, 255)), (0, 255, 0), id="HSV"),
        pytest.param(Image.new("RGB", (1, 1), (200, 30, 40)).convert("YCbCr"), (200, 30, 40), id="YCbCr"),
        pytest.param(Image.new("RGB", (1, 1), (200, 30, 40)).convert("P"), (204, 51, 51), id="P of the web palette"),
    ],
)
def test_opaque_colours_stay_as_they_look(image: Image.Image, expected: tuple[int, ...]):
    (pixel,) = rgb_pixels(image)

    assert np.abs(np.subtract(pixel, expected)).max() <= 2
    assert flags_of(image) == ()


@pytest.mark.parametrize("colour", [(220, 30, 40), (20, 200, 60), (128, 128, 128), (255, 255, 255), (0, 0, 0)])
def test_lab_comes_back_as_the_colour_it_was_made_from(colour: tuple[int, int, int]):
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
    image = ImageCms.profileToProfile(Image.new("RGB", (2, 2), colour), srgb, lab, outputMode="LAB")

    assert np.abs(np.subtract(rgb_pixels(image)[0], colour)).max() <= 4


class TestTransparency:
    @pytest.mark.parametrize(
        ("image", "expected"),
        [
            pytest.param(solid("RGBA", (255, 0, 0, 0)), (255, 255, 255), id="RGBA clear"),
            pytest.param(solid("RGBA", (255, 0, 0, 128)), HALF_RED_ON_WHITE, id="RGBA half"),
            pytest.param(solid("RGBa", (128, 0, 0, 128)), HALF_RED_ON_WHITE, id="RGBa half"),
            pytest.param(solid("LA", (0, 128)), (127, 127, 127), id="LA half"),
            pytest.param(Image.new("LA", (1, 1), (100, 51)).convert("La"), (224, 224, 224), id="La one fifth"),
        ],
    )
    def test_is_put_on_white(self, image: Image.Image, expected: tuple[int, ...]):
        (pixel,) = rgb_pixels(image)

        assert np.abs(np.subtract(pixel, expected)).max() <= 1
        assert flags_of(image) == (ALPHA_COMPOSITED,)

    @pytest.mark.parametrize(
        ("mode", "pixels", "transparent", "expected"),
        [
            pytest.param("L", (10, 20), 10, [(255, 255, 255), (20, 20, 20)], id="L"),
            pytest.param("RGB", ((10, 0, 0), (20, 0, 0)), (10, 0, 0), [(255, 255, 255), (20, 0, 0)], id="RGB"),
            pytest.param("I;16", (2570, 65535), 2570, [(255, 255, 255), (255, 255, 255)], id="I;16"),
            pytest.param("I;16", (2570, 257), 2570, [(255, 255, 255), (1, 1, 1)], id="I;16 dark neighbour"),
        ],
    )
    def test_one_colour_may_be_the_transparent_one(self, mode: str, pixels: tuple, transparent, expected: list):
        image = solid(mode, *pixels)
        image.info["transparency"] = transparent

        assert rgb_pixels(image) == expected
        assert ALPHA_COMPOSITED in flags_of(image)

    def test_of_a_palette_is_one_index_or_a_level_for_each(self):
        image = solid("P", 0, 1, 2)
        image.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])

        image.info["transparency"] = 1
        assert rgb_pixels(image) == [(255, 0, 0), (255, 255, 255), (0, 0, 255)]
        image.info["transparency"] = bytes([255, 0, 128])
        assert rgb_pixels(image) == [(255, 0, 0), (255, 255, 255), (127, 127, 255)]

    def test_may_sit_in_the_palette_itself(self):
        image = solid("P", 0, 1)
        image.putpalette([255, 0, 0, 255, 0, 255, 0, 0], "RGBA")

        assert rgb_pixels(image) == [(255, 0, 0), (255, 255, 255)]

    def test_beside_a_palette_is_kept_too(self):
        image = Image.merge("LA", (solid("L", 0, 1), solid("L", 255, 0)))
        palette = Image.frombytes("PA", (2, 1), image.tobytes())
        palette.putpalette([255, 0, 0, 0, 255, 0])

        assert rgb_pixels(palette) == [(255, 0, 0), (255, 255, 255)]

    @pytest.mark.parametrize("mode", ["RGBA", "LA", "RGBa", "La", "PA"])
    def test_that_hides_nothing_gets_no_flag(self, mode: str):
        opaque = Image.new("LA" if mode in ("La", "PA") else "RGBA", (2, 2), "white")

        assert flags_of(opaque.convert(mode)) == ()

    def test_keeps_the_colours_of_opaque_pixels_exactly(self):
        colours = np.random.default_rng(0).integers(0, 256, (8, 8, 4), dtype=np.uint8)
        colours[..., 3] = np.where(np.arange(64).reshape(8, 8) % 2, 255, colours[..., 3])
        converted = np.asarray(to_rgb(Image.fromarray(colours))[0])

        opaque = colours[..., 3] == 255
        assert (converted[opaque] == colours[opaque][:, :3]).all()


class TestDeepGrey:
    @pytest.mark.parametrize(
        ("mode", "dtype"),
        [("I;16", "<u2"), ("I;16L", "<u2"), ("I;16B", ">u2"), ("I;16N", "=u2"), ("I", "=i4")],
    )
    def test_of_16_bits_is_scaled_and_not_clipped(self, mode: str, dtype: str):
        image = row_of(mode, [0, 128, 129, 257, 32768, 65535], dtype)

        assert [pixel[0] for pixel in rgb_pixels(image)] == [0, 0, 1, 1, 128, 255]
        assert flags_of(image) == (SCALED_16BIT,)

    @pytest.mark.parametrize(
        ("mode", "dtype", "values", "levels"),
        [
            pytest.param("I", "=i4", [-100, 0, 100], [0, 128, 255], id="negative integers"),
            pytest.param("I", "=i4", [0, 2**30, 2**31 - 1], [0, 128, 255], id="32-bit integers"),
            pytest.param("F", "=f4", [-1.0, 0.0, 3.0], [0, 64, 255], id="floats"),
            pytest.param("F", "=f4", [0.0, 51.0, 255.0], [0, 51, 255], id="floats up to 255"),
            pytest.param("F", "=f4", [-3e38, 0.0, 3e38], [0, 128, 255], id="floats at their limits"),
            pytest.param("F", "=f4", [7.0, 7.0], [0, 0], id="one value everywhere"),
        ],
    )
    def test_without_a_known_range_is_stretched(self, mode: str, dtype: str, values: list, levels: list[int]):
        image = row_of(mode, values, dtype)

        assert [pixel[0] for pixel in rgb_pixels(image)] == levels
        assert flags_of(image) == (RANGE_STRETCHED,)

    def test_of_floats_from_0_to_1_is_scaled(self):
        image = row_of("F", [0.0, 0.2, 0.6, 1.0], "=f4")

        assert [pixel[0] for pixel in rgb_pixels(image)] == [0, 51, 153, 255]
        assert flags_of(image) == ()

    @pytest.mark.parametrize(
        ("values", "levels"),
        [
            pytest.param([np.nan, np.inf, -np.inf, 0.6], [0, 255, 0, 153], id="beside fractions"),
            pytest.param([np.nan, np.inf, -np.inf, 10.0, 20.0], [0, 255, 0, 0, 255], id="beside large values"),
            pytest.param([np.nan, np.nan], [0, 0], id="nothing else"),
        ],
    )
    def test_survives_nan_and_infinity(self, values: list[float], levels: list[int]):
        assert [pixel[0] for pixel in rgb_pixels(row_of("F", values, "=f4"))] == levels
