import numpy as np
import pytest
from PIL import Image

from pipeline.draw_mark import draw_mark
from schemas.rows import Mark

SIZE = (200, 100)


def drawn(kind, *points, color="red"):
    """(100, 200) where the mark is."""
    image = Image.new("RGB", SIZE, "white")
    marked = draw_mark(image, Mark(kind=kind, points=points, color=color))
    assert image.getcolors() == [(SIZE[0] * SIZE[1], (255, 255, 255))], "the picture itself is left as it is"
    return np.asarray(marked) != 255


def touched(pixels):
    ys, xs = np.nonzero(pixels.any(axis=2))
    return xs.min(), ys.min(), xs.max(), ys.max()


@pytest.mark.parametrize("kind", ["box", "circle"])
def test_box_and_circle_fill_their_corners_in_any_order_and_are_hollow(kind):
    pixels = drawn(kind, (150, 80), (50, 20))
    assert touched(pixels) == (50, 20, 150, 80)
    assert not pixels[50, 100].any()


def test_arrow_has_its_head_at_its_second_point():
    pixels = drawn("arrow", (20, 50), (180, 50)).any(axis=2)
    assert pixels[48:53, 100].any()
    assert pixels[:, 174:178].any(axis=1).sum() > pixels[:, 22:26].any(axis=1).sum() == 2


def test_scribble_goes_through_its_points():
    pixels = drawn("scribble", (10, 10), (100, 90), (190, 10), color="#0000ff")
    for x, y in ((10, 10), (55, 50), (100, 90), (190, 10)):
        assert pixels[y - 2 : y + 3, x - 2 : x + 3].any()


@pytest.mark.parametrize(("kind", "points"), [("star", ((1, 1), (2, 2))), ("box", ((1, 1),))])
def test_what_cannot_be_drawn_is_refused(kind, points):
    with pytest.raises(ValueError, match="cannot draw"):
        drawn(kind, *points)
