import pytest

from model.nano.scores import Scores, edit_distance, iou

BOX = (10, 10, 30, 30)
NEAR = (12, 10, 32, 30)
ELSEWHERE = (60, 60, 80, 80)


@pytest.mark.parametrize(
    ("one", "other", "edits"),
    [("", "", 0), ("tea", "tea", 0), ("", "tea", 3), ("tea", "", 3), ("tea 47", "sea 4", 2), ("abc", "ca", 3)],
)
def test_edit_distance_counts_insertions_deletions_and_replacements(one: str, other: str, edits: int):
    assert edit_distance(one, other) == edits


def test_iou_of_boxes():
    assert iou(BOX, BOX) == 1
    assert iou(BOX, ELSEWHERE) == 0
    assert iou(BOX, NEAR) == pytest.approx(360 / 440)
    assert iou((5, 5, 5, 5), (5, 5, 5, 5)) == 0


def test_caption_is_scored_by_its_objects_and_counts_repeated_ones():
    scores = Scores()
    there = [("red", "circle"), ("red", "circle"), ("blue", "star")]
    scores.add_caption("A small red circle and a large green star.", truth="?", objects=there)
    assert (scores.named.right, scores.named.total, scores.found.total) == (1, 2, 3)
    assert scores.object_f1 == pytest.approx(2 * (1 / 2) * (1 / 3) / (1 / 2 + 1 / 3))


def test_text_read_where_nothing_is_written_raises_the_error_rate():
    scores = Scores()
    scores.add_text("open 47", truth="open 42", print_size="small")
    scores.add_text("tea", truth="", print_size="none")
    assert scores.character_error_rate == pytest.approx((1 + 3) / 7)


def test_a_phrase_that_fits_one_thing_wants_one_box_on_it():
    scores = Scores()
    for boxes in ([NEAR], [ELSEWHERE], [NEAR, ELSEWHERE], []):
        scores.add_boxes(boxes, truth=[BOX], others=[ELSEWHERE], num_objects=2)
    assert (scores.boxes[2].right, scores.boxes[2].total) == (1, 4)
    assert scores.misplaced.share == 1 / 4, "one box alone lies on the other thing"


def test_phrases_that_fit_nothing_or_several_are_scored_apart():
    scores = Scores()
    scores.add_boxes([], truth=[], others=[BOX], num_objects=1)
    scores.add_boxes([NEAR], truth=[], others=[BOX], num_objects=1)
    scores.add_boxes([NEAR], truth=[BOX, ELSEWHERE], others=[], num_objects=2)
    assert scores.absent.share == 1 / 2
    assert scores.several.share == 1 / 2
    assert not scores.boxes


def test_an_empty_set_has_figures_and_lines():
    assert Scores().object_f1 == Scores().box_share == Scores().character_error_rate == 0
    assert len(Scores().lines()) == 4
