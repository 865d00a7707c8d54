import io
import subprocess
import sys
import textwrap
import threading
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.decode import ANIMATED, EXIF_ROTATED, MULTI_PAGE, DecodedImage, decode_image
from pipeline.to_rgb import ALPHA_COMPOSITED, SCALED_16BIT
from schemas.errors import ErrorKind, RowError, RowFailure
from tests.pipeline.pictures import (
    BLUE,
    CORNERS,
    GREEN,
    RED,
    YELLOW,
    corners_of,
    encode,
    four_corners,
    png,
    png_rows,
)

REPOSITORY = Path(__file__).parents[2]
GOLDEN = REPOSITORY / "tests" / "golden_data" / "images"
PHOTOGRAPHS = sorted(path for path in (REPOSITORY.parent / "shared" / "images").glob("*.*"))
ORIENTATION = 0x0112


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


@pytest.fixture(autouse=True)
def _pillow_settings_stay_and_never_warn() -> Iterator[None]:
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
    assert before == Image.MAX_IMAGE_PIXELS


class TestFormats:
    @pytest.mark.parametrize(
        ("file_format", "options", "tolerance"),
        [
            pytest.param("JPEG", {"quality": 95}, 6, id="JPEG"),
            pytest.param("JPEG", {"quality": 95, "progressive": True}, 6, id="progressive JPEG"),
            pytest.param("PNG", {}, 0, id="PNG"),
            pytest.param("WEBP", {"lossless": True}, 0, id="lossless WebP"),
            pytest.param("WEBP", {"quality": 95}, 8, id="WebP"),
            pytest.param("TIFF", {}, 0, id="TIFF"),
            pytest.param("TIFF", {"compression": "tiff_lzw"}, 0, id="TIFF LZW"),
            pytest.param("TIFF", {"compression": "jpeg"}, 20, id="TIFF JPEG"),
            pytest.param("BMP", {}, 0, id="BMP"),
            pytest.param("GIF", {}, 0, id="GIF"),
            pytest.param("AVIF", {"quality": 95}, 8, id="AVIF"),
            pytest.param("JPEG2000", {}, 2, id="JPEG 2000"),
            pytest.param("PPM", {}, 0, id="PPM"),
        ],
    )
    def test_are_decoded_to_the_colours_that_were_stored(self, file_format: str, options: dict, tolerance: int):
        decoded = decode(encode(four_corners(), file_format, **options))

        assert (decoded.image.mode, decoded.image.size, decoded.flags) == ("RGB", (48, 32), ())
        assert farthest(decoded.image, CORNERS) <= tolerance

    @pytest.mark.parametrize(
        ("mode", "file_format", "options", "tolerance"),
        [
            pytest.param("CMYK", "JPEG", {}, 6, id="CMYK JPEG"),
            pytest.param("CMYK", "TIFF", {}, 0, id="CMYK TIFF"),
            pytest.param("YCbCr", "TIFF", {"compression": "jpeg", "quality": 95}, 8, id="YCbCr TIFF"),
            pytest.param("P", "PNG", {}, 40, id="palette PNG"),
            pytest.param("P", "GIF", {}, 40, id="palette GIF"),
        ],
    )
    def test_colour_models_of_files_come_out_as_rgb(self, mode: str, file_format: str, options: dict, tolerance: int):
        decoded = decode(encode(four_corners().convert(mode), file_format, **options))

        assert decoded.image.mode == "RGB"
        assert farthest(decoded.image, CORNERS) <= tolerance

    def test_lab_tiff_comes_out_as_rgb(self):
        srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB")
        image = ImageCms.profileToProfile(four_corners(), srgb, lab, outputMode="LAB")

        assert farthest(decode(encode(image, "TIFF")).image, CORNERS) <= 4

    @pytest.mark.parametrize("file_format", ["PNG", "TIFF", "PPM"])
    def test_grey_of_16_bits_is_scaled(self, file_format: str):
        grey = np.array([[0, 257 * 80], [257 * 160, 65535]], dtype=np.uint16)
        decoded = decode(encode(Image.fromarray(grey), file_format))

        assert pixels(decoded.image)[..., 0].tolist() == [[0, 80], [160, 255]]
        assert decoded.flags == (SCALED_16BIT,)

    def test_big_endian_grey_of_16_bits_is_scaled(self):
        image = Image.frombytes("I;16B", (2, 1), np.array([257, 65535], dtype=">u2").tobytes())

        assert pixels(decode(encode(image, "TIFF")).image)[..., 0].tolist() == [[1, 255]]


class TestTransparency:
    @pytest.mark.parametrize("file_format", ["PNG", "WEBP", "TIFF", "AVIF"])
    def test_is_put_on_white(self, file_format: str):
        image = four_corners().convert("RGBA")
        image.putalpha(Image.fromarray(np.repeat([[0, 255]], 32, axis=0).repeat(24, axis=1).astype(np.uint8)))
        options = {"lossless": True} if file_format == "WEBP" else {}
        decoded = decode(encode(image, file_format, **options))

        white = (255, 255, 255)
        assert farthest(decoded.image, (white, GREEN, white, YELLOW)) <= (12 if file_format == "AVIF" else 0)
        assert decoded.flags == (ALPHA_COMPOSITED,)

    def test_index_of_a_gif_is_put_on_white(self):
        image = Image.new("P", (2, 1))
        image.putpalette([*RED, *BLUE])
        image.putpixel((1, 0), 1)
        decoded = decode(encode(image, "GIF", transparency=1))

        assert pixels(decoded.image).tolist() == [[list(RED), [255, 255, 255]]]

    @pytest.mark.parametrize(
        ("depth", "colour_type", "row", "transparent", "expected"),
        [
            pytest.param(1, 0, b"\x80", b"\0\1", [255, 0], id="1-bit grey"),
            pytest.param(8, 0, b"\x0a\x14", b"\0\x0a", [255, 20], id="8-bit grey"),
            pytest.param(16, 0, b"\x0a\x0a\x14\x14", b"\x0a\x0a", [255, 20], id="16-bit grey"),
            pytest.param(8, 2, b"\x0a\0\0\x14\0\0", b"\0\x0a\0\0\0\0", [255, 20], id="8-bit colour"),
            pytest.param(
                16, 2, b"\x0a\x0a\0\0\0\0\x14\x14\0\0\0\0", b"\x0a\x0a\0\0\0\0", [255, 20], id="16-bit colour"
            ),
        ],
    )
    def test_colour_of_a_png_is_put_on_white(
        self, depth: int, colour_type: int, row: bytes, transparent: bytes, expected: list[int]
    ):
        encoded = png(2, 1, depth=depth, colour_type=colour_type, pixels=png_rows(row), transparent=transparent)
        decoded = decode(encoded)

        assert pixels(decoded.image)[0, :, 0].tolist() == expected
        assert ALPHA_COMPOSITED in decoded.flags


class TestOrientation:
    STORED: ClassVar[dict[int, Callable[[np.ndarray], np.ndarray]]] = {
        1: lambda upright: upright,
        2: np.fliplr,
        3: lambda upright: np.rot90(upright, 2),
        4: np.flipud,
        5: lambda upright: np.swapaxes(upright, 0, 1),
        6: lambda upright: np.rot90(upright, 1),
        7: lambda upright: np.swapaxes(np.rot90(upright, 2), 0, 1),
        8: lambda upright: np.rot90(upright, -1),
    }

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
    @pytest.mark.parametrize("orientation", range(1, 9))
    def test_of_the_camera_is_applied(self, orientation: int, file_format: str):
        stored = Image.fromarray(np.ascontiguousarray(self.STORED[orientation](np.asarray(four_corners(64, 32)))))
        exif = Image.Exif()
        exif[ORIENTATION] = orientation
        decoded = decode(encode(stored, file_format, exif=exif))

        assert decoded.image.size == (64, 32)
        assert farthest(decoded.image, CORNERS) <= 25
        assert decoded.flags == ((EXIF_ROTATED,) if orientation > 1 else ())

    def test_leaves_no_trace_that_would_turn_the_image_again(self):
        exif = Image.Exif()
        exif[ORIENTATION] = 6
        decoded = decode(encode(four_corners(), "JPEG", exif=exif))

        assert ORIENTATION not in decoded.image.getexif()

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
    @pytest.mark.parametrize(
        "exif",
        [
            pytest.param(b"Exif\0\0garbage, not TIFF", id="no TIFF"),
            pytest.param(b"Exif\0\0II*\0\xff\xff\xff\x7f", id="directory beyond the end"),
            pytest.param(b"Exif\0\0II*\0\x08\0\0\0\xff\xff\x12\x01", id="directory cut off"),
            pytest.param(b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\3\0\1\0\0\0\x63\0\0\0\0\0\0\0", id="orientation 99"),
            pytest.param(b"Exif\0\0II*\0\x08\0\0\0\1\0\x12\1\2\0\4\0\0\0abc\0\0\0\0\0", id="orientation as text"),
        ],
    )
    def test_that_is_broken_does_not_fail_the_image(self, exif: bytes, file_format: str):
        decoded = decode(encode(four_corners(), file_format, exif=exif))

        assert decoded.flags == ()
        assert farthest(decoded.image, CORNERS) <= 25


class TestSeveralFrames:
    @pytest.mark.parametrize("file_format", ["GIF", "WEBP", "PNG", "AVIF"])
    def test_first_frame_of_an_animation_is_used(self, file_format: str):
        second = Image.new("RGB", (48, 32), BLUE)
        encoded = encode(four_corners(), file_format, save_all=True, append_images=[second], duration=100)
        decoded = decode(encoded)

        assert decoded.flags == (ANIMATED,)
        assert farthest(decoded.image, CORNERS) <= 25

    def test_first_page_of_a_tiff_is_used(self):
        encoded = encode(four_corners(), "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 9))])

        assert decode(encoded).flags == (MULTI_PAGE,)
        assert corners_of(decode(encoded).image) == list(CORNERS)

    def test_second_picture_of_a_phone_photograph_is_not_mentioned(self):
        encoded = encode(four_corners(), "MPO", save_all=True, append_images=[four_corners()])

        assert Image.open(io.BytesIO(encoded)).format == "MPO"
        assert decode(encoded).flags == ()

    def test_broken_second_frame_does_not_fail_the_first(self):
        encoded = encode(four_corners(), "GIF", save_all=True, append_images=[Image.new("RGB", (48, 32), BLUE)])

        assert corners_of(decode(encoded[:-30]).image) == list(CORNERS)


class TestFailures:
    def test_no_bytes_are_empty(self):
        assert failure(b"").kind is ErrorKind.EMPTY

    @pytest.mark.parametrize(
        ("encoded", "words"),
        [
            (b"<!DOCTYPE html><html><body>Not found</body></html>", "HTML"),
            (b'<svg xmlns="http://www.w3.org/2000/svg"></svg>', "SVG"),
            (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
            (b"%PDF-1.4\n%\xe2\xe3\xcf\xd3\n", "PDF"),
            (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
            (b"just some words", "text"),
            (b"\x07\x08\x09", "07 08 09"),
        ],
    )
    def test_what_is_no_image_is_unreadable_and_says_what_it_is(self, encoded: bytes, words: str):
        error = failure(encoded)

        assert error.kind is ErrorKind.UNREADABLE
        assert words in error.message

    @pytest.mark.parametrize(
        ("file_format", "options"),
        [
            ("JPEG", {}),
            ("PNG", {}),
            ("WEBP", {}),
            ("TIFF", {}),
            ("TIFF", {"compression": "tiff_lzw"}),
            ("BMP", {}),
            ("GIF", {}),
            ("AVIF", {}),
            ("JPEG2000", {}),
            ("PPM", {}),
        ],
    )
    @pytest.mark.parametrize("kept", [0.1, 0.5, 0.85])
    def test_file_that_ends_too_early_is_truncated(self, file_format: str, options: dict, kept: float):
        noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
        encoded = encode(Image.fromarray(noise), file_format, **options)
        error = failure(encoded[: int(len(encoded) * kept)])

        assert error.kind is ErrorKind.TRUNCATED
        assert f"after {int(len(encoded) * kept)} bytes" in error.message

    def test_size_is_checked_before_any_pixel_is_decoded(self):
        error = failure(png(60_000, 50_000, depth=8, colour_type=2, pixels=b""), max_pixels=200_000_000)

        assert error.kind is ErrorKind.TOO_MANY_PIXELS
        assert error.message == "60000x50000 = 3000000000 pixels, more than max_pixels = 200000000"

    def test_image_of_exactly_the_limit_is_decoded(self):
        encoded = encode(four_corners(), "PNG")

        assert decode(encoded, max_pixels=48 * 32).image.size == (48, 32)
        assert failure(encoded, max_pixels=48 * 32 - 1).kind is ErrorKind.TOO_MANY_PIXELS

    def test_pixels_that_cannot_be_unpacked_are_the_decoders_failure(self):
        error = failure(png(8, 8, depth=8, colour_type=2, pixels=b"these bytes are no zlib stream at all"))

        assert error.kind is ErrorKind.DECODER_FAILED
        assert "PNG that its decoder refuses" in error.message

    def test_running_out_of_memory_is_the_decoders_failure(self):
        script = """
            import resource
            from pathlib import Path
            from pipeline.decode import decode_image
            from schemas.errors import RowFailure
            from tests.pipeline.pictures import png

            encoded = png(30_000, 30_000, depth=8, colour_type=2, pixels=b"")
            in_use_bytes = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
            limit_bytes = in_use_bytes + 100_000_000
            resource.setrlimit(resource.RLIMIT_AS, (limit_bytes, limit_bytes))
            try:
                decode_image(encoded, max_pixels=10**9, min_decoded_fraction=1)
            except RowFailure as failure:
                print(failure.error.kind, failure.error.message)
        """
        child = subprocess.run(
            [sys.executable, "-c", textwrap.dedent(script)],
            cwd=REPOSITORY,
            capture_output=True,
            text=True,
            check=True,
        )

        assert child.stdout.startswith("decoder_out_of_memory PNG for which memory ran out")

    @pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP", "TIFF", "GIF", "AVIF", "BMP", "JPEG2000"])
    @pytest.mark.filterwarnings("ignore")
    def test_damaged_bytes_raise_nothing_but_row_failures(self, file_format: str):
        random = np.random.default_rng(7)
        encoded = np.frombuffer(encode(four_corners(), file_format), dtype=np.uint8)
        for _ in range(60):
            damaged = encoded.copy()
            damaged[random.integers(0, len(encoded), 6)] = random.integers(0, 256, 6)
            try:
                assert decode(damaged.tobytes()).image.mode == "RGB"
            except RowFailure:
                continue


class TestPillowLimit:
    @pytest.mark.parametrize("file_format", ["PNG", "TIFF", "GIF", "WEBP"])
    def test_below_ours_does_not_fire(self, file_format: str, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        encoded = encode(four_corners(), file_format)

        assert decode(encoded, max_pixels=48 * 32).image.size == (48, 32)
        assert Image.MAX_IMAGE_PIXELS == 100

    def test_is_back_after_a_failure(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        failure(b"no image")

        assert Image.MAX_IMAGE_PIXELS == 100

    def test_is_back_after_several_threads_decoded(self, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
        encoded, sizes = encode(four_corners(), "PNG"), []

        def decode_many() -> None:
            sizes.extend(decode(encoded).image.size for _ in range(50))

        threads = [threading.Thread(target=decode_many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

        assert sizes == [(48, 32)] * 200
        assert Image.MAX_IMAGE_PIXELS == 100


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
