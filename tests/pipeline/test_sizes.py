"""Sizes from headers: those that decoding would find, and no file that hurts."""

import numpy as np
import pytest
from PIL import Image

from pipeline.fetch import FetchImage
from pipeline.patience import Patience
from pipeline.prepare import TileImage
from pipeline.sizes import HEADER_BYTES, read_sizes
from pipeline.storage import join_uri, open_store
from schemas.errors import ErrorKind
from schemas.rows import TILES_COLUMN, rows_of, to_columns
from tests.hostile.corpus import hostile_files
from tests.pipeline.pictures import encode, four_corners
from tests.pipeline.rows import one_image_row

CANDIDATES = ((28, 28), (28, 56), (56, 28), (56, 56), (84, 28), (28, 84))
PATIENCE = Patience(store_s=0.0)
MAX_PIXELS = 1_000_000
ON_ITS_SIDE = Image.Exif()
ON_ITS_SIDE[0x0112] = 6


def tile_stage(**options):
    return TileImage(candidate_resolutions=CANDIDATES, max_pixels=MAX_PIXELS, **options)


def sizes_of(folder_uri, files: dict[str, bytes], *, max_bytes=10_000_000):
    """The rows of these files, after they are put there."""
    rows = []
    for name, data in files.items():
        uri = join_uri(str(folder_uri), name)
        open_store(uri).put(uri, data)
        rows.append(one_image_row(sample_id=name, image_uri=uri, manifest_shard="", recipes=("ocr",)))
    fetch = FetchImage(max_bytes=max_bytes, image_column=None, patience=PATIENCE)
    tile = tile_stage(headers_only=True)
    found = list(read_sizes(rows, fetch=fetch, tile=tile, max_bytes=max_bytes, patience=PATIENCE))
    tile.close()
    assert [row.sample_id for row in found] == list(files)
    return found


def noise(width=200, height=160) -> Image.Image:
    """A picture that no format makes small."""
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8))


FORMATS = {
    "a.jpg": encode(four_corners(60, 30), "JPEG"),
    "on-its-side.jpg": encode(four_corners(60, 30), "JPEG", exif=ON_ITS_SIDE),
    "a.png": encode(four_corners(90, 30), "PNG"),
    "on-its-side.png": encode(four_corners(90, 30), "PNG", exif=ON_ITS_SIDE),
    "a.gif": encode(four_corners(30, 90), "GIF"),
    "a.bmp": encode(four_corners(), "BMP"),
    "a.tif": encode(four_corners(60, 30), "TIFF"),
    "on-its-side.tif": encode(four_corners(60, 30), "TIFF", exif=ON_ITS_SIDE),
    "a.avif": encode(four_corners(60, 60), "AVIF"),
    "a.webp": encode(four_corners(60, 60), "WEBP"),
    "a.jp2": encode(four_corners(60, 60), "JPEG2000"),
    "a.ppm": encode(four_corners(60, 60), "PPM"),
    "large.webp": encode(noise(), "WEBP", lossless=True),
    "large.tif": encode(noise(), "TIFF", compression="tiff_deflate"),
    "large.png": encode(noise(), "PNG"),
}


def test_sizes_and_grids_are_those_that_decoding_finds(tmp_path):
    assert all(len(FORMATS[name]) > HEADER_BYTES for name in FORMATS if name.startswith("large"))
    told = sizes_of(tmp_path, FORMATS)
    rows = [one_image_row(sample_id=name, image_uri=name, manifest_shard="", recipes=("ocr",)) for name in FORMATS]
    decoded = tile_stage()(to_columns(rows, encoded=[[data] for data in FORMATS.values()]))
    for from_header, from_pixels in zip(told, rows_of(decoded), strict=True):
        (header,), (pixels,) = from_header.images, from_pixels.images
        assert (from_header.error, from_pixels.error) == (None, None), from_header.sample_id
        assert (header.width_px, header.height_px) == (pixels.width_px, pixels.height_px), from_header.sample_id
        assert (header.tiles_wide, header.tiles_high) == (pixels.tiles_wide, pixels.tiles_high), from_header.sample_id


def test_of_an_object_on_s3_a_header_is_read_and_no_more(bucket, monkeypatch):
    asked: list[int] = []
    store = type(open_store(bucket))
    get_range = store.get_range

    def counted(self, info, first, num_bytes):
        asked.append(num_bytes)
        return get_range(self, info, first, num_bytes)

    monkeypatch.setattr(store, "get_range", counted)
    (row,) = sizes_of(bucket, {"large.png": FORMATS["large.png"]})
    assert (row.width_px, row.height_px) == (200, 160)
    assert asked == [HEADER_BYTES]


def test_what_a_header_tells_is_quarantined_for_the_reason_of_a_run(tmp_path):
    files = {
        "page.jpg": b"<!DOCTYPE html><html></html>",
        "empty.png": b"",
        "many-pixels.png": encode(Image.new("1", (2000, 1000)), "PNG"),
        "many-bytes.bmp": encode(noise(), "BMP"),
        "fine.png": FORMATS["a.png"],
    }
    found = sizes_of(tmp_path, files, max_bytes=90_000)
    kinds = [row.error.kind if row.error else None for row in found]
    assert kinds == [
        ErrorKind.UNREADABLE,
        ErrorKind.EMPTY,
        ErrorKind.TOO_MANY_PIXELS,
        ErrorKind.TOO_MANY_BYTES,
        None,
    ]


def test_missing_file_costs_itself_alone(tmp_path):
    gone = one_image_row(sample_id="gone", image_uri=str(tmp_path / "gone.png"), manifest_shard="", recipes=("ocr",))
    fetch = FetchImage(max_bytes=1000, image_column=None, patience=PATIENCE)
    tile = tile_stage(headers_only=True)
    (row,) = read_sizes([gone], fetch=fetch, tile=tile, max_bytes=1000, patience=PATIENCE)
    tile.close()
    assert row.error is not None
    assert row.error.kind is ErrorKind.MISSING


def test_hostile_files_end_as_rows(tmp_path):
    files = {f"{number:03d}": file.encoded for number, file in enumerate(hostile_files(num_variants=2))}
    found = sizes_of(tmp_path, files)
    assert all(row.error is not None or row.width_px * row.height_px <= MAX_PIXELS for row in found)


def test_stage_that_reads_headers_gives_no_tiles():
    row = one_image_row(sample_id="a", image_uri="a", manifest_shard="", recipes=("ocr",))
    block = tile_stage(headers_only=True)(to_columns([row], encoded=[[FORMATS["a.png"]]]))
    assert [tiles.shape for tiles in block[TILES_COLUMN]] == [(0, 28, 28, 3)]


@pytest.mark.parametrize("name", ["a.png", "on-its-side.png"])
def test_png_that_is_cut_off_after_150_bytes_still_tells_its_size(tmp_path, name):
    (row,) = sizes_of(tmp_path, {name: FORMATS[name][:150]})
    assert {row.width_px, row.height_px} == {90, 30}
