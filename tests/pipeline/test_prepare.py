import json

import numpy as np
import pytest
from PIL import Image

from pipeline.decode import EXIF_ROTATED
from pipeline.prepare import TileImage
from schemas.errors import ErrorKind, RowError
from schemas.rows import (
    CARRIED_COLUMN,
    ENCODED_COLUMN,
    ROW_COLUMN,
    TILES_COLUMN,
    ImageRow,
    rows_of,
    to_columns,
)
from tests.pipeline.pictures import BLUE, GREEN, RED, YELLOW, encode, four_corners
from tests.pipeline.rows import one_image_row

SIZE = 28
CANDIDATES = tuple(
    (SIZE * wide, SIZE * high) for wide, high in ((1, 1), (1, 2), (2, 1), (2, 2), (3, 1), (1, 3), (4, 1), (1, 4))
)


def stage(**options: int) -> TileImage:
    return TileImage(**{"candidate_resolutions": CANDIDATES, "max_pixels": 1_000_000, **options})


def row(name: str = "image", **fields: object) -> ImageRow:
    return one_image_row(
        **{
            "sample_id": name,
            "image_uri": f"s3://bucket/{name}",
            "version": "1",
            "manifest_shard": "00000",
            "recipes": ("ocr",),
            "carried": name.encode(),
            **fields,
        }
    )


def block(*images: tuple[ImageRow, bytes]) -> dict[str, list]:
    return to_columns([row for row, _ in images], encoded=[[encoded] for _, encoded in images])


def test_block_of_bytes_becomes_a_block_of_tiles():
    prepared = stage()(block((row(), encode(four_corners(), "PNG"))))

    assert set(prepared) == {ROW_COLUMN, CARRIED_COLUMN, TILES_COLUMN}
    (tiles,) = prepared[TILES_COLUMN]
    assert (tiles.dtype, tiles.shape[1:]) == (np.uint8, (SIZE, SIZE, 3))
    assert prepared[CARRIED_COLUMN] == [b"image"]


def test_row_learns_the_size_and_the_grid_of_its_image():
    prepared = stage()(block((row(), encode(four_corners(SIZE * 3, SIZE), "PNG"))))

    (done,) = rows_of(prepared)
    assert (done.width_px, done.height_px) == (SIZE * 3, SIZE)
    assert (done.tiles_wide, done.tiles_high) == (3, 1)
    assert done.flags == ()
    assert done.error is None
    assert len(prepared[TILES_COLUMN][0]) == 1 + 3


def test_tiles_are_the_global_view_and_then_the_picture_row_by_row():
    (tiles,) = stage()(block((row(), encode(four_corners(SIZE * 2, SIZE * 2), "PNG"))))[TILES_COLUMN]

    middle = SIZE // 2
    assert [tuple(tile[middle, middle]) for tile in tiles[1:]] == [RED, GREEN, BLUE, YELLOW]
    quarter = SIZE // 4
    assert tuple(tiles[0][quarter, quarter]) == RED
    assert tuple(tiles[0][-quarter, -quarter]) == YELLOW


def test_turned_image_has_the_size_and_grid_it_is_seen_with():
    exif = Image.Exif()
    exif[0x0112] = 6
    (done,) = rows_of(stage()(block((row(flags=("earlier",)), encode(four_corners(56, 28), "JPEG", exif=exif)))))

    assert (done.width_px, done.height_px) == (28, 56)
    assert (done.tiles_wide, done.tiles_high) == (1, 2)
    assert done.flags == ("earlier", EXIF_ROTATED)


@pytest.mark.parametrize(
    ("encoded", "kind"),
    [
        pytest.param(b"", ErrorKind.EMPTY, id="empty"),
        pytest.param(b"<html>", ErrorKind.UNREADABLE, id="not an image"),
        pytest.param(encode(four_corners(), "PNG")[:60], ErrorKind.TRUNCATED, id="cut off"),
        pytest.param(encode(Image.new("1", (2000, 2000)), "PNG"), ErrorKind.TOO_MANY_PIXELS, id="too large"),
    ],
)
def test_row_that_fails_to_decode_keeps_its_reason(encoded: bytes | None, kind: ErrorKind):
    good = encode(four_corners(), "PNG")
    prepared = stage()(block((row("before"), good), (row("bad"), encoded), (row("after"), good)))

    before, bad, after = rows_of(prepared)
    assert bad.error is not None
    assert bad.error.kind is kind
    assert (bad.width_px, bad.tiles_wide) == (0, 0)
    assert before.error is None
    assert after.error is None


def test_failed_row_carries_an_empty_array_and_never_none():
    prepared = stage()(block((row(), b"no image")))

    (tiles,) = prepared[TILES_COLUMN]
    assert (tiles.dtype, tiles.shape) == (np.uint8, (0, SIZE, SIZE, 3))


def test_row_that_failed_earlier_passes_through_unchanged():
    missing = row().failed(RowError(kind=ErrorKind.MISSING, message="no such object"))
    prepared = stage()(block((missing, b"")))

    assert rows_of(prepared) == [missing]
    assert prepared[TILES_COLUMN][0].shape == (0, SIZE, SIZE, 3)


def test_image_that_cannot_be_tiled_keeps_its_reason():
    """Candidates that are no multiple of the tile size: a broken checkpoint must not take the block down."""
    broken = TileImage(candidate_resolutions=((SIZE, SIZE), (SIZE * 2 + 1, SIZE)), max_pixels=1_000_000)
    (done,) = rows_of(broken(block((row(), encode(four_corners(SIZE * 2, SIZE), "PNG")))))

    assert done.error is not None
    assert done.error.kind is ErrorKind.TILING_FAILED
    assert f"{SIZE * 2}x{SIZE} pixels: ValueError" in done.error.message


@pytest.mark.parametrize("size", [(1, 1), (1, 900), (900, 1)])
def test_extreme_shapes_are_tiled(size: tuple[int, int]):
    prepared = stage()(block((row(), encode(Image.new("RGB", size, RED), "PNG"))))

    (done,) = rows_of(prepared)
    assert done.error is None
    assert len(prepared[TILES_COLUMN][0]) == 1 + done.tiles_wide * done.tiles_high


def test_threads_change_neither_the_order_nor_the_result():
    images = [(row(f"image{n}"), encode(four_corners(20 + 8 * n, 64), "PNG")) for n in range(12)]
    images[5] = (row("image5"), b"no image")

    alone, threaded = stage()(block(*images)), stage(num_threads=4)(block(*images))

    assert threaded[ROW_COLUMN] == alone[ROW_COLUMN]
    assert [json.loads(text)["sample_id"] for text in threaded[ROW_COLUMN]] == [f"image{n}" for n in range(12)]
    for one, other in zip(alone[TILES_COLUMN], threaded[TILES_COLUMN], strict=True):
        assert (one == other).all()


def test_tiles_of_equal_shape_stay_one_array_for_each_row():
    encoded = encode(four_corners(), "PNG")
    prepared = stage()(block((row("a"), encoded), (row("b"), encoded)))

    assert prepared[TILES_COLUMN].dtype == object
    assert [tiles.ndim for tiles in prepared[TILES_COLUMN]] == [4, 4]


def test_columns_may_come_as_numpy_arrays():
    columns = block((row("a"), encode(four_corners(), "PNG")), (row("b"), b""))
    arrays = {name: np.array(values, dtype=object) for name, values in columns.items()}

    assert [done.sample_id for done in rows_of(stage()(arrays))] == ["a", "b"]


def test_block_without_rows_stays_one():
    prepared = stage()({ROW_COLUMN: [], CARRIED_COLUMN: [], ENCODED_COLUMN: []})

    assert {name: len(values) for name, values in prepared.items()} == {
        ROW_COLUMN: 0,
        CARRIED_COLUMN: 0,
        TILES_COLUMN: 0,
    }


def test_stage_without_resolutions_or_threads_is_refused():
    with pytest.raises(ValueError, match="at least one thread"):
        stage(num_threads=0)
    with pytest.raises(ValueError, match="candidate resolutions"):
        TileImage(candidate_resolutions=(), max_pixels=1)
