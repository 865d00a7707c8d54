import pytest

from pipeline.signatures import is_cut_off, looks_like
from tests.pipeline.pictures import encode, four_corners, tiff

FORMATS = {
    "JPEG": "JPEG",
    "PNG": "PNG",
    "GIF": "GIF",
    "WEBP": "WebP",
    "TIFF": "TIFF",
    "BMP": "BMP",
    "AVIF": "AVIF",
    "JPEG2000": "JPEG 2000",
}


@pytest.mark.parametrize(("file_format", "kind"), FORMATS.items())
def test_image_formats_are_named(file_format: str, kind: str):
    assert looks_like(encode(four_corners(), file_format)) == kind


@pytest.mark.parametrize(
    ("first_bytes", "words"),
    [
        (b"<!DOCTYPE html><title>404", "HTML, perhaps an error page instead of the image"),
        (b"\n  <html>", "HTML, perhaps an error page instead of the image"),
        (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code>', "XML, perhaps an error of the store"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "HEIC"),
        (b"\0\0\0\x18ftypmp42", "an MP4-like container"),
        (b"%PDF-1.7", "PDF"),
        (b'{"error": "gone"}', "JSON"),
        (b"hello\n", "text"),
        ("größe ".encode() * 200, "text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        (b"RIFF\x10\0\0\0WAVE", "a RIFF file that is not WebP"),
        (bytes(100), "nothing but zero bytes"),
        (b"\x01\x02\xfe\xff", "unknown data starting with 01 02 fe ff"),
    ],
)
def test_what_is_no_image_is_named_in_words(first_bytes: bytes, words: str):
    assert looks_like(first_bytes).startswith(words)


@pytest.mark.parametrize("file_format", FORMATS)
def test_file_is_cut_off_wherever_it_ends_too_early(file_format: str):
    encoded = encode(four_corners(), file_format)

    assert not is_cut_off(encoded)
    assert [size for size in range(12, len(encoded) - 4) if not is_cut_off(encoded[:size])] == []


@pytest.mark.parametrize(
    "encoded",
    [
        pytest.param(encode(four_corners(), "TIFF", compression="tiff_lzw"), id="its directory last"),
        pytest.param(tiff(four_corners(), rows_per_strip=4, compression="deflate"), id="its directory first"),
        pytest.param(tiff(four_corners(), rows_per_strip=32, compression="deflate"), id="a single strip"),
    ],
)
def test_tiff_is_cut_off_wherever_its_directory_or_its_strips_are(encoded: bytes):
    assert not is_cut_off(encoded)
    assert [size for size in range(12, len(encoded)) if not is_cut_off(encoded[:size])] == []


@pytest.mark.parametrize("encoded", [b"", b"hello", b"%PDF", bytes(50)])
def test_what_is_no_image_is_never_cut_off(encoded: bytes):
    assert not is_cut_off(encoded)
