"""What the automaton allows is compared with trying: a text may begin a list if something makes a legal list of it."""

import functools
import random
import re

import numpy as np
import pytest

from model.box_automaton import CHARACTERS, BoxAutomaton, BoxState, characters_to_end, read, start_of_list

PLAIN = tuple(CHARACTERS)
PUNCTUATION = ("[[", "]]", "[]", "],", "][", ", ", "], ", "], [", " [", ", [", ",,", "  ")
NUMBERS = (*map(str, range(10, 1000)), "00", "01", "007", "1000", "12345")
VOCABULARIES = {
    "single characters": PLAIN,
    "whole numbers": (*PLAIN, *PUNCTUATION, *NUMBERS),
    "numbers after a blank": (*PLAIN, " 0", " 7", " 07", " 42", " 998", " 999", ", 5", ", 999"),
    "numbers before a mark": (
        *PLAIN,
        "0,",
        "9,",
        "99,",
        "999,",
        "5]",
        "10, ",
        "42]]",
        "0, 0, 1, 1]]",
        "5], [3",
        "[[0, 0",
    ),
}

LEGAL = re.compile(r"\[(\[(0|[1-9]\d{0,2})(, (0|[1-9]\d{0,2})){3}\](, (?=\[)|(?=\]$)))*\]")
FAR_SIDES = ("9", "99", "999")  # the least number of so many digits is there whenever the largest is
LISTS = [f"{opening}[0, 0, {x2}, {y2}]]" for x2 in FAR_SIDES for y2 in FAR_SIDES for opening in ("[", ", ")]
ENDS = {digits + text[start:] for text in LISTS for start in range(len(text) + 1) for digits in ("", "9", "99")}
ENDS_BY_LENGTH = sorted({*ENDS, "[]"}, key=len)


def is_legal(text: str, max_boxes: int) -> bool:
    numbers = [int(number) for number in re.findall(r"\d+", text)]
    boxes = [numbers[start : start + 4] for start in range(0, len(numbers), 4)]
    return (
        LEGAL.fullmatch(text) is not None
        and len(boxes) <= max_boxes
        and all(x1 < x2 and y1 < y2 for x1, y1, x2, y2 in boxes)
    )


@functools.cache
def shortest_end(text: str, max_boxes: int) -> int | None:
    """Characters after which the text is a legal list; None if there are none such."""
    return next((len(end) for end in ENDS_BY_LENGTH if is_legal(text + end, max_boxes)), None)


@functools.cache
def automaton(name: str) -> BoxAutomaton:
    return BoxAutomaton({text.encode(): [index] for index, text in enumerate(VOCABULARIES[name])})


def state_after(text: str, max_boxes: int = 2) -> BoxState | None:
    return read(start_of_list(max_boxes), text)


def test_oracle_knows_lists():
    assert is_legal("[[0, 0, 1, 1]]", 1)
    assert is_legal("[[0, 0, 1, 1], [998, 5, 999, 10]]", 2)
    for text in (
        "[[0, 0, 1, 1], ]",
        "[[0, 0, 1, 1]",
        "[[00, 0, 1, 1]]",
        "[[0,0,1,1]]",
        "[[1, 0, 1, 1]]",
        "[0, 0, 1, 1]",
    ):
        assert not is_legal(text, 2)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_tokens_that_may_follow_are_those_after_which_a_list_can_be_completed_in_time(name: str):
    rng = random.Random(name)
    vocabulary = VOCABULARIES[name]
    sampled = sorted(rng.sample(range(len(vocabulary)), min(40, len(vocabulary))))
    for _ in range(5):
        max_boxes, budget, text = rng.randint(1, 3), rng.randint(2, 60), ""
        state: BoxState | None = start_of_list(max_boxes)
        while state is not None and characters_to_end(state) > 0:
            assert characters_to_end(state) == shortest_end(text, max_boxes)
            allowed = automaton(name).allowed_ids(state, budget)
            for index in sampled:
                to_end = shortest_end(text + vocabulary[index], max_boxes)
                assert (index in allowed) == (to_end is not None and to_end <= budget), (
                    text,
                    vocabulary[index],
                    budget,
                )
                assert (automaton(name).step(state, index) is None) == (to_end is None), (text, vocabulary[index])
            index = int(rng.choice(allowed))
            text, budget = text + vocabulary[index], budget - 1
            state = automaton(name).step(state, index)
        assert is_legal(text, max_boxes)


@pytest.mark.parametrize("name", VOCABULARIES)
def test_no_token_is_offered_twice(name: str):
    rng = random.Random(name)
    state = start_of_list(3)
    while characters_to_end(state) > 0:
        allowed = automaton(name).allowed_ids(state, 1000)
        assert len(np.unique(allowed)) == len(allowed) > 0
        following = automaton(name).step(state, int(rng.choice(allowed)))
        assert following is not None
        state = following


def test_all_ways_to_cut_a_list_into_tokens_are_allowed():
    tokens = VOCABULARIES["whole numbers"]
    for pieces in (list("[[10, 2, 345, 67]]"), ["[[", "10", ", ", "2", ",", " ", "34", "5", ", ", "6", "7", "]]"]):
        state: BoxState | None = start_of_list(1)
        for piece in pieces:
            assert state is not None
            assert tokens.index(piece) in automaton("whole numbers").allowed_ids(state, 1000)
            state = automaton("whole numbers").step(state, tokens.index(piece))
        assert state is not None
        assert characters_to_end(state) == 0


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[[999", "nothing lies to the right of 999"),
        ("[[5, 999", "nothing lies below 999"),
        ("[[00", "leading zero"),
        ("[[07", "leading zero"),
        ("[[1000", "beyond the grid"),
        ("[[5, 5, 0", "right of the box is not right of 5"),
        ("[[5, 5, 5,", "a box of no width"),
        ("[[5, 5, 6, 5]", "a box of no height"),
        ("[[60, 5, 600, 7,", "a fifth number"),
        ("[[495, 5, 48", "neither 48 nor 480..489 is over 495"),
        ("[[,", "no number"),
        ("[[5, 5, ,", "no number"),
        ("[ ", "a blank within brackets"),
        ("[[5,5", "no blank after the comma"),
        ("[[5,  ", "two blanks"),
        ("[[5, 5, 6, 6],[", "no blank between boxes"),
        ("[[5, 5, 6, 6], ]", "a comma without a box"),
        ("[[5, 5, 6, 6], [5, 5, 6, 6],", "a third of two boxes"),
        ("[[5, 5, 6, 6]]]", "text after the end"),
        ("[]]", "text after the end"),
    ],
)
def test_text_that_begins_no_legal_list_is_refused_at_its_last_character(text: str, why: str):
    assert state_after(text[:-1]) is not None, why
    assert state_after(text) is None, why
    assert shortest_end(text, 2) is None, why


def test_box_whose_left_side_is_998_has_its_right_side_at_999():
    state = state_after("[[998, 0, ")
    assert state is not None
    offered = {VOCABULARIES["whole numbers"][index] for index in automaton("whole numbers").allowed_ids(state, 100)}
    assert offered == {"9", "99", "999"}


def test_states_of_different_boxes_are_the_same_again():
    assert state_after("[[1, 2, 3, 4], ", 2) == state_after("[[500, 600, 700, 800], ", 2)


@pytest.mark.parametrize("missing", CHARACTERS)
def test_vocabulary_without_one_of_the_characters_is_refused(missing: str):
    others = {text.encode(): [index] for index, text in enumerate(VOCABULARIES["whole numbers"]) if text != missing}
    with pytest.raises(ValueError, match=re.escape(f"no token for {missing!r}, which boxes need")):
        BoxAutomaton(others)
