"""An answer -> where it does nothing but count, or None: 12.5, 12.6, 12.7 and so on, or boxes that drift by a pixel.

Only numbers with no word between: lists, which number their entries, are as long as they are. A chart of the numbers
from 1 to 100, a ruler and a calendar are shorter than what counts here.
"""

import re

import numpy as np

_WORDS = re.compile(r"[^\W\d_]+")
_NUMBER = re.compile(r"\d{1,15}(?:\.\d{1,15})?")
_MIN_NUMBERS = 200
_MAX_STEP = 8
"""So many numbers at most belong together, such as the four of a box."""


def find_counting(text: str) -> str | None:
    for piece in _WORDS.split(text):
        if len(piece) < 2 * _MIN_NUMBERS:
            continue
        numbers = np.array([float(number) for number in _NUMBER.findall(piece)])
        for step in range(1, _MAX_STEP + 1):
            if counted := _longest_count(numbers, step):
                start, length = counted
                return f"counts on from {numbers[start]:g}, over {length} numbers"
    return None


def _longest_count(numbers: np.ndarray, step: int) -> tuple[int, int] | None:
    """(start, length) of the longest stretch in which each number differs from that `step` before by as much as that
    one from its own, if it is long enough, and differs at all."""
    if len(numbers) < _MIN_NUMBERS:
        return None
    differences = numbers[step:] - numbers[:-step]
    is_even = np.abs(differences[step:] - differences[:-step]) < 1e-6
    edges = np.flatnonzero(np.diff(np.concatenate([[0], is_even.astype(np.int8), [0]])))
    begins, ends = edges[::2], edges[1::2]
    if not len(begins):
        return None
    longest = int(np.argmax(ends - begins))
    start, length = int(begins[longest]), int(ends[longest] - begins[longest]) + 2 * step
    is_moving = bool(np.any(np.abs(differences[start : start + step]) > 1e-6))
    return (start, length) if length >= _MIN_NUMBERS and is_moving else None
