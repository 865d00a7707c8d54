"""Formats, transparency, orientation and several frames: pixels as a person would see them."""

import io
from collections.abc import Callable
from typing import ClassVar

import numpy as np
import pytest
from PIL import Image, ImageCms

from pipeline.decode import ANIMATED, EXIF_ROTATED, MULTI_PAGE
from pipeline.to_rgb import ALPHA_COMPOSITED, SCALED_16BIT
from tests.pipeline.decoding import decode, farthest, pixels
from tests.pipeline.pictures import BLUE, CORNERS, GREEN, RED, YELLOW, corners_of, encode, four_corners, png, png_rows

pytestmark = pytest.mark.usefixtures("pillow_settings_stay")

ORIENTATION = 0x0112


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
