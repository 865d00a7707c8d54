"""Which tokens may come next in a list of boxes, `[[x1, y1, x2, y2], ...]`: integers 0..999, x1 < x2, y1 < y2.

It reads characters, because every checkpoint has its own tokenizer: `[[`, `, ` or `123` are one token in some. A token
may come next where all its characters may, so every segmentation of a legal list passes, not only the usual one.
Knows nothing of labels, control tokens and the end of an answer. Shapes: N tokens, C = 1000 coordinates.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

CHARACTERS = "[], 0123456789"

_DIGITS = "0123456789"
_NUM_COORDINATES = 1000
_IMPOSSIBLE = 1000
"""Characters needed where no characters help; far more than any list needs to close."""

_NEXT_PLACE = {
    ("start", "["): "first",
    ("first", "["): "x1",
    ("first", "]"): "end",
    ("x1", ","): "x1,",
    ("x1,", " "): "y1",
    ("y1", ","): "y1,",
    ("y1,", " "): "x2",
    ("x2", ","): "x2,",
    ("x2,", " "): "y2",
    ("y2", "]"): "box",
    ("box", ","): "box,",
    ("box,", " "): "next",
    ("next", "["): "x1",
    ("box", "]"): "end",
}
"""What a mark leads to. Digits stay where they are, which must be one of the coordinates."""

_NEAR, _FAR = ("x1", "y1"), ("x2", "y2")
_COORDINATES = _NEAR + _FAR

_SHORTEST_END = {
    "start": "[]",
    "first": "]",
    "x1": ", 0, X, Y]]",
    "x1,": " 0, X, Y]]",
    "y1": ", X, Y]]",
    "y1,": " X, Y]]",
    "x2": ", Y]]",
    "x2,": " Y]]",
    "y2": "]]",
    "box": "]",
    "box,": " [0, 0, X, Y]]",
    "next": "[0, 0, X, Y]]",
    "end": "",
}
"""What closes the list soonest once the coordinate at hand is written; X and Y are the least that x2 and y2 can be."""


class BoxState(NamedTuple):
    """What was read, as far as it matters for what may follow."""

    place: str
    number: int | None
    """The coordinate at hand as it reads so far; None before its first digit, and elsewhere."""
    least_x2: int
    least_y2: int
    boxes_left: int


def start_of_list(max_boxes: int) -> BoxState:
    return BoxState("start", None, 1, 1, max_boxes)


def read(state: BoxState, text: str) -> BoxState | None:
    """The state after the text, or None where no legal list goes on like this."""
    for character in text:
        following = _read_digit(state, int(character)) if character in _DIGITS else _read_mark(state, character)
        if following is None:
            return None
        state = following
    return state


def characters_to_end(state: BoxState) -> int:
    """Length of the shortest text that makes the list complete."""
    if state.place not in _COORDINATES:
        return _characters_after_number(state)
    if state.number is not None:
        return _characters_after_number(state) + int(_number_costs(state)[state.number])
    return _characters_after_number(state) + (1 if state.place in _NEAR else len(str(_least(state))))


def _read_digit(state: BoxState, digit: int) -> BoxState | None:
    if state.place not in _COORDINATES or state.number == 0:  # no leading zeros
        return None
    number = (state.number or 0) * 10 + digit
    if number >= _NUM_COORDINATES or _number_costs(state)[number] >= _IMPOSSIBLE:
        return None
    return state._replace(number=number)


def _read_mark(state: BoxState, mark: str) -> BoxState | None:
    place = _NEXT_PLACE.get((state.place, mark))
    if place is None or (place in ("x1", "box,") and state.boxes_left == 0):
        return None
    _, number, least_x2, least_y2, boxes_left = state
    if state.place in _COORDINATES:
        if number is None or (state.place in _FAR and number < _least(state)):
            return None
        # A far side forgets its bound, so that states of different boxes are the same again.
        least_x2 = {"x1": number + 1, "x2": 1}.get(state.place, least_x2)
        least_y2 = {"y1": number + 1, "y2": 1}.get(state.place, least_y2)
    return BoxState(place, None, least_x2, least_y2, boxes_left - (place == "x1"))


def _least(state: BoxState) -> int:
    return state.least_x2 if state.place == "x2" else state.least_y2


def _characters_after_number(state: BoxState) -> int:
    end = _SHORTEST_END[state.place]
    more_x, more_y = len(str(state.least_x2)) - 1, len(str(state.least_y2)) - 1
    return len(end) + ("X" in end) * more_x + ("Y" in end) * more_y


def _number_costs(state: BoxState) -> np.ndarray:
    """int16 [C]: by what the coordinate at hand reads, how many characters more than `_characters_after_number`."""
    return _near_side_costs() if state.place in _NEAR else _far_side_costs()[_least(state)]


@functools.cache
def _near_side_costs() -> np.ndarray:
    """int16 [C]: a left or top side is complete as it stands, but one of 99 needs a far side of three digits."""
    costs_C = np.array([len(str(number + 1)) - 1 for number in range(_NUM_COORDINATES)], dtype=np.int16)
    costs_C[-1] = _IMPOSSIBLE  # nothing lies beyond the last
    return costs_C


@functools.cache
def _far_side_costs() -> np.ndarray:
    """int16 [C, C], row `least`: digits that must follow to reach `least`. 2 MB."""
    numbers_C, least_C1 = np.arange(_NUM_COORDINATES), np.arange(_NUM_COORDINATES)[:, None]
    costs_CC = np.full((_NUM_COORDINATES, _NUM_COORDINATES), _IMPOSSIBLE, dtype=np.int16)
    for num_digits in (2, 1, 0):
        largest_C = (numbers_C + 1) * 10**num_digits - 1
        may_grow_C = (numbers_C > 0) | (num_digits == 0)
        costs_CC[may_grow_C & (largest_C >= least_C1) & (largest_C < _NUM_COORDINATES)] = num_digits
    return costs_CC


class _Head:
    """Tokens that are alike but for the digits they end with; in many vocabularies only the head "" has any."""

    def __init__(self, text: str, ids: Sequence[int], numbered: Sequence[tuple[str, int]]) -> None:
        """`ids` of the tokens that end with the head, (digits, id) of the others."""
        self.text, self.numbered = text, numbered
        self.ids_N = np.array(ids, dtype=np.int64)
        self._numbers: dict[int | None, tuple[np.ndarray, np.ndarray]] = {}  # at most 1001: a coordinate's readings

    def numbers(self, number: int | None) -> tuple[np.ndarray, np.ndarray]:
        """int64 [N] ids of the tokens with digits, and int64 [N] what a coordinate that read `number` reads then."""
        if number not in self._numbers:
            before = "" if number is None else str(number)
            grown = [(before + digits, index) for digits, index in self.numbered]
            legal = [(index, int(text)) for text, index in grown if len(text) <= 3 and (text == "0" or text[0] != "0")]
            ids_N, numbers_N = np.array(legal, dtype=np.int64).reshape(-1, 2).T
            self._numbers[number] = ids_N, numbers_N
        return self._numbers[number]


class BoxAutomaton:
    """The grammar over one vocabulary. Safe to share between answers."""

    def __init__(self, ids_by_text: Mapping[bytes, Sequence[int]]) -> None:
        """Takes the ids of ordinary tokens by their text. Raises ValueError naming characters that no token spells."""
        boxlike = {text.decode(): ids for text, ids in ids_by_text.items() if not text.strip(CHARACTERS.encode())}
        missing = [character for character in CHARACTERS if character not in boxlike]
        if missing:
            raise ValueError(f"the vocabulary has no token for {', '.join(map(repr, missing))}, which boxes need")
        self._text_by_id = {index: text for text, ids in boxlike.items() for index in ids}
        heads = _group_by_head(self._text_by_id)
        self._heads = {place: [head for head in heads if _may_follow(place, head.text)] for place in _SHORTEST_END}

    def step(self, state: BoxState, token_id: int) -> BoxState | None:
        text = self._text_by_id.get(token_id)
        return None if text is None else read(state, text)

    def tokens_to_end(self, state: BoxState) -> int:
        """So many tokens are enough, as every character is a token."""
        return characters_to_end(state)

    def allowed_ids(self, state: BoxState, budget: int) -> np.ndarray:
        """int64 [N], unordered: the tokens after which `budget` further tokens are enough to complete the list."""
        budget = min(budget, _IMPOSSIBLE - 1)
        found = [np.empty(0, dtype=np.int64)]
        for head in self._heads[state.place]:
            after = read(state, head.text)
            if after is None:
                continue
            if len(head.ids_N) and characters_to_end(after) <= budget:
                found.append(head.ids_N)
            if head.numbered and after.place in _COORDINATES:
                ids_N, numbers_N = head.numbers(after.number)
                costs_N = _number_costs(after)[numbers_N] + _characters_after_number(after)
                found.append(ids_N[costs_N <= budget])
        return np.concatenate(found)


def _group_by_head(text_by_id: Mapping[int, str]) -> list[_Head]:
    alone: dict[str, list[int]] = {}
    numbered: dict[str, list[tuple[str, int]]] = {}
    for index, text in text_by_id.items():
        head = text.rstrip(_DIGITS)
        if head == text:
            alone.setdefault(head, []).append(index)
        else:
            numbered.setdefault(head, []).append((text[len(head) :], index))
    return [_Head(head, alone.get(head, ()), numbered.get(head, ())) for head in {**alone, **numbered}]


def _may_follow(place: str, text: str) -> bool:
    """Whether some numbers make the text legal here. Most tokens of these characters, such as "][", fit nowhere."""
    if not text:
        return place in _COORDINATES
    for character in text:
        following = place if character in _DIGITS and place in _COORDINATES else _NEXT_PLACE.get((place, character))
        if following is None:
            return False
        place = following
    return True
