import pytest

from pipeline.recipes.boxes import Box, parse_boxes

WIDTH, HEIGHT = 1998, 999
"""Twice as wide as the grid and as high as it, so that a coordinate mixed up with another shows."""


def parse(text, default_label="the query"):
    return parse_boxes(text, default_label=default_label, width_px=WIDTH, height_px=HEIGHT)


def ref(label, boxes):
    return f"<|ref|>{label}<|/ref|><|det|>{boxes}<|/det|>"


def pixels(parsed):
    return [(box.x1, box.y1, box.x2, box.y2) for box in parsed.boxes]


@pytest.mark.parametrize(
    ("boxes", "found", "flags"),
    [
        pytest.param("[[1, 2, 3, 4]]", [(2, 2, 6, 4)], (), id="one box"),
        pytest.param("[[1,2,3,4],[5,6,7,8]]", [(2, 2, 6, 4), (10, 6, 14, 8)], (), id="two boxes without blanks"),
        pytest.param(" [\n[ 1 ,2, 3,4 ] , [5,6,7,8] ] ", [(2, 2, 6, 4), (10, 6, 14, 8)], (), id="blanks everywhere"),
        pytest.param("[[0, 0, 999, 999]]", [(0, 0, WIDTH, HEIGHT)], (), id="the whole image"),
        pytest.param("[]", [], (), id="empty list"),
        pytest.param("[[]]", [], ("boxes_malformed",), id="list of an empty list"),
        pytest.param("", [], ("boxes_malformed",), id="nothing"),
        pytest.param("[1, 2, 3, 4]", [(2, 2, 6, 4)], ("boxes_malformed",), id="no list around the box"),
        pytest.param("[[[1, 2, 3, 4]]]", [(2, 2, 6, 4)], ("boxes_malformed",), id="nested too deep"),
        pytest.param("[[1, 2, 3]]", [], ("boxes_malformed",), id="three numbers"),
        pytest.param("[[1, 2, 3, 4, 5]]", [], ("boxes_malformed",), id="five numbers"),
        pytest.param(
            "[[1, 2, 3], [5, 6, 7, 8]]", [(10, 6, 14, 8)], ("boxes_malformed",), id="bad box beside a good one"
        ),
        pytest.param("[[1, 2, 3, 4],]", [(2, 2, 6, 4)], ("boxes_malformed",), id="trailing comma"),
        pytest.param(
            "[[1, 2, 3, 4] [5, 6, 7, 8]]", [(2, 2, 6, 4), (10, 6, 14, 8)], ("boxes_malformed",), id="no comma"
        ),
        pytest.param("[[1.5, 2, 3, 4]]", [], ("boxes_malformed",), id="fraction"),
        pytest.param("[[-1, 2, 3, 4]]", [], ("boxes_malformed",), id="negative"),
        pytest.param("[[1e1, 2, 3, 4]]", [], ("boxes_malformed",), id="exponent"),
        pytest.param("[[0x1, 2, 3, 4]]", [], ("boxes_malformed",), id="hexadecimal"),
        pytest.param("[[١, ٢, ٣, ٤]]", [], ("boxes_malformed",), id="digits of another script"),
        pytest.param("[[99999, 2, 3, 4]]", [], ("boxes_malformed",), id="five digits"),
        pytest.param("[[1, 2, 9999, 4]]", [], ("boxes_out_of_range",), id="9999"),
        pytest.param("[[1, 2, 1000, 4]]", [], ("boxes_out_of_range",), id="1000"),
        pytest.param("[[3, 2, 3, 4]]", [], ("boxes_out_of_range",), id="no width"),
        pytest.param("[[1, 4, 3, 2]]", [], ("boxes_out_of_range",), id="upside down"),
        pytest.param(
            "[[3, 2, 1, 4], [5, 6, 7, 8]]", [(10, 6, 14, 8)], ("boxes_out_of_range",), id="one of two reversed"
        ),
        pytest.param("__import__('os').system('id')", [], ("boxes_malformed",), id="code"),
        pytest.param("[[1, 2, 3, 4], __import__('os')]", [(2, 2, 6, 4)], ("boxes_malformed",), id="code after a box"),
        pytest.param("9**9**9", [], ("boxes_malformed",), id="power"),
        pytest.param("[[1, 2, 3, len('four')]]", [], ("boxes_malformed",), id="code in a box"),
        pytest.param("[[1, 2, 3, 4] for _ in 'x']", [(2, 2, 6, 4)], ("boxes_malformed",), id="comprehension"),
        pytest.param(
            "[[1, 2, 3, 4]] < [[5, 6, 7, 8]]", [(2, 2, 6, 4), (10, 6, 14, 8)], ("boxes_malformed",), id="less"
        ),
    ],
)
def test_boxes_are_read_in_pixels_and_what_is_wrong_is_flagged(boxes, found, flags):
    parsed = parse(ref("cat", boxes))
    assert pixels(parsed) == found
    assert parsed.flags == flags
    assert {box.label for box in parsed.boxes} <= {"cat"}


@pytest.mark.parametrize(
    "text",
    ["", "There is no cat.", "[[1, 2, 3, 4]]", "<|ref|>cat<|/ref|>", "<|/det|>[[1, 2, 3, 4]]<|det", "< | det | >[[1]]"],
)
def test_answer_without_a_detection_is_flagged_as_such(text):
    assert parse(text).boxes == ()
    assert parse(text).flags == ("boxes_absent",)


def test_each_detection_has_its_own_label():
    parsed = parse(f"I see {ref('a cat', '[[1, 2, 3, 4]]')} and {ref('a dog', '[[5, 6, 7, 8]]')}.")
    assert [(box.label, box.x1) for box in parsed.boxes] == [("a cat", 2), ("a dog", 10)]
    assert parsed.flags == ()


@pytest.mark.parametrize(
    ("text", "label"),
    [
        ("<|det|>[[1, 2, 3, 4]]<|/det|>", "the query"),
        ("<|ref|><|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>", "the query"),
        ("<|ref|>  <|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>", "the query"),
        ("<|ref|> a cat <|/ref|> \n <|det|>[[1, 2, 3, 4]]<|/det|>", "a cat"),
        ("<|ref|>price < 5 | sale<|/ref|><|det|>[[1, 2, 3, 4]]<|/det|>", "price < 5 | sale"),
    ],
)
def test_box_without_a_label_gets_that_of_the_query(text, label):
    parsed = parse(text)
    assert [box.label for box in parsed.boxes] == [label]
    assert parsed.flags == ()


def test_detection_that_is_cut_off_keeps_its_whole_boxes():
    parsed = parse("<|ref|>cat<|/ref|><|det|>[[1, 2, 3, 4], [5, 6")
    assert pixels(parsed) == [(2, 2, 6, 4)]
    assert parsed.flags == ("boxes_malformed",)


def test_detection_that_does_not_end_takes_no_box_of_the_next():
    parsed = parse("<|ref|>cat<|/ref|><|det|>[[1, 2, 3, 4]]" + ref("dog", "[[5, 6, 7, 8]]"))
    assert [(box.label, box.x1) for box in parsed.boxes] == [("cat", 2), ("dog", 10)]
    assert parsed.flags == ("boxes_malformed",)


def test_flags_are_given_once_each():
    parsed = parse(ref("a", "[[9, 9, 1, 1], [9, 9, 1, 1]]") + ref("b", "[[1]]") + ref("c", "nothing"))
    assert sorted(parsed.flags) == ["boxes_malformed", "boxes_out_of_range"]


def test_box_knows_its_four_sides():
    assert parse(ref("cat", "[[100, 200, 300, 400]]")).boxes == (Box(label="cat", x1=200, y1=200, x2=600, y2=400),)


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("<|det|>[" + " " * 300_000 + "x", id="blanks in a list"),
        pytest.param("<|det|>[[1" + " " * 300_000 + "x", id="blanks in a box"),
        pytest.param("<|det|>[" + "[1, 2, 3, 4], " * 30_000 + "x", id="boxes"),
        pytest.param("<|det|>" + "[" * 1_000_000, id="brackets"),
        pytest.param("<|det|>" + "[" * 500_000 + "]" * 500_000 + "<|/det|>", id="nested lists"),
        pytest.param("<|det|>" + "[ " * 200_000, id="brackets and blanks"),
        pytest.param("<|det|>" * 50_000, id="openings"),
        pytest.param("<|ref|>" * 50_000, id="references"),
        pytest.param("<|ref|>x<|/ref|> " * 30_000, id="references without boxes"),
        pytest.param("<|ref|>" + "x" * 300_000, id="a long label"),
        pytest.param("<" * 300_000, id="less-than signs"),
        pytest.param("<|ref|>x<|/ref|>" + " " * 300_000 + "x", id="blanks after a reference"),
    ],
)
def test_no_text_takes_more_than_linear_time(text):
    """With one quadratic pattern among them, a text of this size would hold up a label actor for minutes."""
    assert parse(text).flags
