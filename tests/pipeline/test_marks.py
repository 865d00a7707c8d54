"""Marks drawn into pictures, alone and where images are decoded."""

import math
from contextlib import closing

import numpy as np
import pytest
from PIL import ExifTags, Image

from model.tiling import tile_image
from pipeline.decode_child import DecodeSettings, prepare_image
from pipeline.marks import draw_mark
from pipeline.prepare import TileImage
from pipeline.sandbox import DecodeSandbox
from pipeline.views import split_tiles
from schemas.errors import ErrorKind, RowFailure, Stage
from schemas.rows import TILES_COLUMN, ImageRow, Mark, RowImage, rows_of, to_columns
from tests.pipeline.pictures import encode, four_corners
from tests.pipeline.rows import one_image_row

SIZE = 28
CANDIDATES = ((28, 28), (56, 28), (28, 56), (84, 28), (28, 84))
SETTINGS = DecodeSettings(
    candidate_resolutions=CANDIDATES, max_pixels=10**7, min_decoded_fraction=0.9, timeout_s=60, memory_mb=1024
)
WHITE, RED, BLUE = (255, 255, 255), (255, 0, 0), (0, 0, 255)
SIZES = [(400, 300), (3000, 60), (60, 3000), (12, 9), (2, 2)]
SIZE_IDS = ["ordinary", "wide", "tall", "tiny", "two pixels"]


def mark(kind: str, *points: tuple[float, float], color: str = "red") -> Mark:
    return Mark(kind=kind, points=points, color=color)


def drawn_on_white(size: tuple[int, int], one: Mark) -> np.ndarray:
    """Bool [height, width]: where the mark is."""
    drawn = np.asarray(draw_mark(Image.new("RGB", size, WHITE), one))
    is_drawn = (drawn != WHITE).any(axis=-1)
    assert {tuple(pixel) for pixel in drawn[is_drawn].tolist()} <= {
        Image.new("RGB", (1, 1), one.color).getpixel((0, 0))
    }
    return is_drawn


def columns_and_rows(is_drawn: np.ndarray) -> tuple[int, int, int, int]:
    """Of the pixels drawn: left, top, right, bottom, the last ones included."""
    rows, columns = np.nonzero(is_drawn)
    return int(columns.min()), int(rows.min()), int(columns.max()), int(rows.max())


def width_of_line(size: tuple[int, int]) -> int:
    return max(1, round(math.sqrt(size[0] * size[1]) / 120))


@pytest.mark.parametrize("size", SIZES, ids=SIZE_IDS)
def test_box_is_an_outline_around_its_corners(size: tuple[int, int]):
    width, height = size
    corners = (width // 4, height // 4), (width * 3 // 4, height * 3 // 4)
    is_drawn = drawn_on_white(size, mark("box", *corners))

    reach = width_of_line(size) / 2 + 1
    assert columns_and_rows(is_drawn) == pytest.approx((*corners[0], *corners[1]), abs=reach)
    for x, y in corners:
        assert is_drawn[y, x]
    if min(size) > 20 * width_of_line(size):
        assert not is_drawn[height // 2, width // 2]


@pytest.mark.parametrize("size", SIZES, ids=SIZE_IDS)
def test_circle_touches_the_sides_of_its_box_and_not_the_corners(size: tuple[int, int]):
    width, height = size
    left, top, right, bottom = width // 4, height // 4, width * 3 // 4, height * 3 // 4
    is_drawn = drawn_on_white(size, mark("circle", (left, top), (right, bottom)))

    reach = width_of_line(size) / 2 + 1
    assert columns_and_rows(is_drawn) == pytest.approx((left, top, right, bottom), abs=reach)
    if min(size) > 20 * width_of_line(size):
        assert not is_drawn[top, left]
        assert not is_drawn[height // 2, width // 2]


@pytest.mark.parametrize("kind", ["box", "circle"])
def test_corners_may_come_in_any_order(kind: str):
    one, other = (
        drawn_on_white((200, 100), mark(kind, *corners)) for corners in (((50, 20), (150, 80)), ((150, 80), (50, 20)))
    )
    assert columns_and_rows(one) == columns_and_rows(other)


@pytest.mark.parametrize("size", SIZES, ids=SIZE_IDS)
@pytest.mark.parametrize("kind", ["arrow", "scribble"])
def test_line_runs_from_its_first_point_to_its_last(kind: str, size: tuple[int, int]):
    width, height = size
    start, end = (width // 4, height // 4), (width * 3 // 4, height * 3 // 4)
    is_drawn = drawn_on_white(size, mark(kind, start, end))

    assert is_drawn[start[1], start[0]]
    assert is_drawn[end[1], end[0]]
    assert is_drawn[(start[1] + end[1]) // 2, (start[0] + end[0]) // 2]


def test_arrow_has_its_head_at_its_second_point():
    is_drawn = drawn_on_white((480, 480), mark("arrow", (40, 240), (440, 240)))
    thickness = is_drawn.sum(axis=0)

    shaft = width_of_line((480, 480))
    assert set(thickness[60:400]) == {shaft}
    assert thickness[415:425].max() > 3 * shaft
    assert 1 <= thickness[440] < 3 * shaft
    assert thickness[445:].sum() == 0


def test_line_is_wider_on_a_larger_image():
    widths = [
        drawn_on_white((side, side), mark("scribble", (0, side / 2), (side, side / 2))) for side in (100, 600, 2400)
    ]
    assert [int(is_drawn[:, 50].sum()) for is_drawn in widths] == [1, 5, 20]


@pytest.mark.parametrize("kind", ["arrow", "box", "circle", "scribble"])
def test_mark_is_cut_off_at_the_border(kind: str):
    is_drawn = drawn_on_white((100, 80), mark(kind, (50, 40), (400, 300)))

    assert is_drawn.any()
    assert is_drawn[:, -1].any() or is_drawn[-1].any()


@pytest.mark.parametrize("size", SIZES, ids=SIZE_IDS)
def test_box_around_the_whole_image_is_seen_on_all_sides(size: tuple[int, int]):
    is_drawn = drawn_on_white(size, mark("box", (0, 0), size))

    assert is_drawn[0].all()
    assert is_drawn[-1].all()
    assert is_drawn[:, 0].all()
    assert is_drawn[:, -1].all()


def test_color_is_found_by_its_name_however_it_is_written():
    assert drawn_on_white((50, 50), mark("box", (10, 10), (40, 40), color="Blue")).any()


def test_image_that_was_given_stays_as_it_was():
    image = Image.new("RGB", (50, 50), WHITE)
    draw_mark(image, mark("box", (10, 10), (40, 40)))
    assert image.getcolors() == [(2500, WHITE)]


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        pytest.param(mark("box", (-20, -20), (-5, -5)), "no part of it lies inside", id="left of the image"),
        pytest.param(mark("arrow", (101, 0), (200, 80)), "no part of it lies inside", id="right of the image"),
        pytest.param(mark("circle", (-900, -900), (900, 900)), "no part of it lies inside", id="around the image"),
        pytest.param(mark("scribble", (-40, 70), (20, 110)), "no part of it lies inside", id="past a corner"),
        pytest.param(mark("scribble", (10, 10)), "it has 1 points, but needs 2 or more", id="one point"),
        pytest.param(mark("box"), "it has 0 points, but needs 2", id="no points"),
        pytest.param(mark("arrow", (1, 1), (2, 2), (3, 3)), "it has 3 points, but needs 2", id="three points"),
        pytest.param(mark("arrow", (9, 9), (9, 9)), "the same point", id="arrow without length"),
        pytest.param(mark("box", (10, 10), (10, 40)), "span no area", id="box without area"),
        pytest.param(mark("star", (1, 1), (2, 2)), "no such kind: use one of arrow, box", id="unknown kind"),
        pytest.param(mark("box", (1, 1), (9, 9), color="reddish"), "'reddish' has no name", id="unknown color"),
        pytest.param(mark("box", (1, 1), (9, 9), color="#ff0000"), "'#ff0000' has no name", id="number of a color"),
        pytest.param(mark("box", (1, math.nan), (9, 9)), "nan is no coordinate", id="not a number"),
        pytest.param(mark("scribble", (1, 1), (math.inf, 9)), "inf is no coordinate", id="infinite"),
        pytest.param(mark("arrow", (1, 1), (1e300, 9)), "1e+300 is no coordinate", id="far out"),
    ],
)
def test_mark_that_cannot_be_drawn_is_refused_with_the_reason(bad: Mark, words: str):
    with pytest.raises(RowFailure) as caught:
        draw_mark(Image.new("RGB", (100, 80), WHITE), bad)

    error = caught.value.error
    assert (error.kind, error.stage, error.kind.permanent) == (ErrorKind.BAD_MARK, Stage.DECODE, True)
    assert words in error.message


@pytest.mark.parametrize("orientation", range(1, 9))
def test_mark_lies_in_pixels_of_the_image_as_it_is_seen(orientation: int):
    """Whatever way a camera was held, and whatever it stored."""
    seen = Image.new("RGB", (84, 28), WHITE)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = seen.transpose(undo[orientation]) if orientation in undo else seen
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    box = mark("box", (60, 4), (80, 12), color="blue")

    prepared = prepare_image(encode(stored, "PNG", exif=exif), SETTINGS, marks=[box])

    assert prepared.size == (84, 28)
    _, marked = split_tiles(prepared.tiles, [prepared.grid, *prepared.marked_grids])
    mosaic = np.concatenate(list(marked.tiles[1:]), axis=1)  # 84 x 28 pixels, as they are in the file
    assert columns_and_rows((mosaic == BLUE).all(axis=-1)) == (60, 4, 80, 12)


@pytest.mark.parametrize("size", [(84, 28), (28, 84), (6, 5)], ids=["wide", "tall", "tiny"])
def test_each_mark_has_a_picture_of_its_own_after_the_image(size: tuple[int, int]):
    image = four_corners(*size) if size != (6, 5) else Image.new("RGB", size, WHITE)
    marks = [mark("box", (1, 1), (4, 3)), mark("scribble", (0, 0), (5, 4), color="black")]

    prepared = prepare_image(encode(image, "PNG"), SETTINGS, marks=marks)

    pictures = split_tiles(prepared.tiles, [prepared.grid, *prepared.marked_grids])
    wanted = [image, *(draw_mark(image, one) for one in marks)]
    for picture, source in zip(pictures, wanted, strict=True):
        there = tile_image(source, CANDIDATES)
        assert picture.grid == there.grid
        assert (picture.tiles == there.tiles).all()


@pytest.fixture(scope="module")
def stage():
    stage = TileImage(candidate_resolutions=CANDIDATES, max_pixels=10**6, mark_recipes=("visual-prompt",), max_marks=3)
    with closing(stage):
        yield stage


def prepared_row(
    stage: TileImage, *pictures: Image.Image, recipes=("visual-prompt",), marks=()
) -> tuple[ImageRow, np.ndarray]:
    row = ImageRow(
        sample_id="a",
        images=tuple(RowImage(uri=f"/{number}.png") for number in range(len(pictures))),
        manifest_shard="shard-00000.parquet",
        recipes=tuple(recipes),
        marks=tuple(marks),
    )
    block = stage(to_columns([row], encoded=[[encode(picture, "PNG") for picture in pictures]]))
    return rows_of(block)[0], block[TILES_COLUMN][0]


BOX = mark("box", (5, 5), (30, 20))


def test_marked_pictures_follow_all_images_of_the_row(stage: TileImage):
    pictures = [four_corners(84, 28), four_corners(28, 84)]
    row, tiles = prepared_row(stage, *pictures, marks=[BOX])

    grids = [(one.tiles_wide, one.tiles_high) for one in row.images]
    assert (grids, row.marked_grids) == ([(3, 1), (1, 3)], ((3, 1),))
    first, second, marked = split_tiles(tiles, [*grids, *row.marked_grids])
    assert (first.tiles == tile_image(pictures[0], CANDIDATES).tiles).all()
    assert (second.tiles == tile_image(pictures[1], CANDIDATES).tiles).all()
    assert (marked.tiles == tile_image(draw_mark(pictures[0], BOX), CANDIDATES).tiles).all()


def test_picture_with_a_mark_is_tiled_although_its_sample_has_too_many_images_for_that(stage: TileImage):
    row, _ = prepared_row(stage, *[four_corners(84, 28)] * 3, marks=[BOX])

    assert [(one.tiles_wide, one.tiles_high) for one in row.images] == [(1, 1)] * 3
    assert row.marked_grids == ((3, 1),)


def test_marks_are_left_where_no_pending_recipe_looks_at_them(stage: TileImage):
    row, tiles = prepared_row(stage, four_corners(84, 28), recipes=("caption",), marks=[mark("star")])

    assert (row.error, row.marked_grids) == (None, ())
    assert len(tiles) == 4


def test_row_with_a_bad_mark_fails_and_its_neighbours_do_not(stage: TileImage):
    rows = [
        one_image_row(sample_id=name, image_uri=name, recipes=("visual-prompt",), marks=marks)
        for name, marks in (("good", (BOX,)), ("bad", (mark("box", (500, 500), (600, 600)),)))
    ]
    block = stage(to_columns(rows, encoded=[[encode(four_corners(84, 28), "PNG")]] * 2))
    good, bad = rows_of(block)

    assert good.error is None
    assert bad.error is not None
    assert bad.error.kind is ErrorKind.BAD_MARK
    assert bad.error.message == (
        "the mark 'box' cannot be drawn: no part of it lies inside of the image, which has 84x28 pixels"
    )
    assert len(block[TILES_COLUMN][1]) == 0


def test_row_with_too_many_marks_is_not_drawn(stage: TileImage):
    row, _ = prepared_row(stage, four_corners(84, 28), marks=[BOX] * 4)

    assert row.error is not None
    assert row.error.message == "the sample has 4 marks to draw, more than limits.max_images = 3"


@pytest.mark.parametrize(
    ("order", "words"),
    [(b"lie of marks", "1 pictures with marks"), (b"lie of metadata", "metadata that is none")],
)
def test_decoding_process_is_not_believed_what_it_was_not_asked_for(order: bytes, words: str):
    with closing(DecodeSandbox(SETTINGS, child_module="tests.pipeline.unruly_child")) as sandbox:
        with pytest.raises(RowFailure) as caught:
            sandbox.prepare(order)

    assert caught.value.error.kind is ErrorKind.DECODER_CRASHED
    assert words in caught.value.error.message
