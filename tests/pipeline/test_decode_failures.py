"""What is no image, or a hostile one, fails with its reason, and Pillow keeps its settings."""

import subprocess
import sys
import textwrap
import threading

import numpy as np
import pytest
from PIL import Image

from schemas.errors import ErrorKind, RowFailure
from tests.pipeline.decoding import REPOSITORY, decode, failure
from tests.pipeline.pictures import encode, four_corners, png

pytestmark = pytest.mark.usefixtures("pillow_settings_stay")


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
