"""Boxes of an answer -> what is wrong with them: flag and detail of each kind of fault, once.

Where an answer was not parsed, the lists of numbers in its text are looked at: coordinates are integers 0..999 there.
"""

import re
from collections.abc import Iterator, Sequence
from typing import Protocol

import numpy as np

from schemas.gates import BoxesGate

_GRID = 999
_LIST = re.compile(r"\[\s*(?P<numbers>-?[0-9][0-9.,\s-]{0,200})(?P<end>\]|.|$)", re.DOTALL)


class _Box(Protocol):
    @property
    def label(self) -> str: ...
    @property
    def x1(self) -> float: ...
    @property
    def y1(self) -> float: ...
    @property
    def x2(self) -> float: ...
    @property
    def y2(self) -> float: ...


def faults_of_boxes(
    boxes: Sequence[_Box] | None,
    text: str,
    *,
    parse_flags: Sequence[str],
    width_px: int,
    height_px: int,
    gate: BoxesGate,
) -> Iterator[tuple[str, str]]:
    """Args:
    boxes: in pixels; None: the answer was not parsed.
    width_px: of the image; 0 where it is unknown, and then nothing lies outside of it.
    """
    for flag in parse_flags:
        if flag in gate.parse_flags:
            yield flag, f"the answer does not have the form of boxes: {text[:60]!r}"
    if boxes is None:
        yield from _faults_of_text(text)
        return
    if len(boxes) > gate.max_boxes:
        yield "boxes_too_many", f"{len(boxes)} boxes, and at most {gate.max_boxes} are wanted"
    looked_at = boxes[: gate.max_boxes]
    if looked_at:
        corners_N4 = np.array([(box.x1, box.y1, box.x2, box.y2) for box in looked_at], dtype=np.float64)
        yield from _faults_of_places(corners_N4, width_px, height_px, gate)
        yield from _near_duplicates(corners_N4, [box.label.casefold() for box in looked_at], gate.max_iou)


def _faults_of_places(
    corners_N4: np.ndarray, width_px: int, height_px: int, gate: BoxesGate
) -> Iterator[tuple[str, str]]:
    x1, y1, x2, y2 = corners_N4.T
    thin = ~((x2 - x1 >= gate.min_side_px) & (y2 - y1 >= gate.min_side_px))  # also what is no number
    if thin.any():
        yield "boxes_degenerate", f"{_at(corners_N4, thin)} has no area"
    if not (width_px and height_px):
        return
    margin = gate.max_outside_px
    outside = (x1 < -margin) | (y1 < -margin) | (x2 > width_px + margin) | (y2 > height_px + margin)
    if outside.any():
        yield "boxes_outside", f"{_at(corners_N4, outside)} is not inside of {width_px} x {height_px} pixels"
    covers = (x2 - x1) * (y2 - y1) >= gate.max_area_share * width_px * height_px
    if (covers & ~thin).any():
        yield "boxes_whole_image", f"{_at(corners_N4, covers & ~thin)} covers the whole image"


def _near_duplicates(corners_N4: np.ndarray, labels: Sequence[str], max_iou: float) -> Iterator[tuple[str, str]]:
    low, high = corners_N4[:, :2], corners_N4[:, 2:]
    common = np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None])
    intersection = np.clip(common, 0, None).prod(axis=-1)
    area = np.clip(high - low, 0, None).prod(axis=-1)
    union = area[:, None] + area[None] - intersection
    same_label = np.array(labels)[:, None] == np.array(labels)[None]
    close = np.triu(same_label & (intersection > max_iou * union), k=1)
    if close.any():
        first, second = np.argwhere(close)[0]
        yield "boxes_duplicate", f"boxes {first} and {second} of {labels[first]!r} are nearly the same"


def _at(corners_N4: np.ndarray, where: np.ndarray) -> str:
    return f"({', '.join(f'{value:g}' for value in corners_N4[np.flatnonzero(where)[0]])})"


def _faults_of_text(text: str) -> Iterator[tuple[str, str]]:
    flags: dict[str, str] = {}
    for found in _LIST.finditer(text):
        numbers = re.findall(r"-?[0-9]+(?:\.[0-9]+)?", found["numbers"])
        if found["end"] != "]" or len(numbers) != 4:
            flags.setdefault("boxes_malformed", f"{found[0][:60]!r} is no box")
            continue
        x1, y1, x2, y2 = map(float, numbers)
        if not (0 <= x1 < x2 <= _GRID and 0 <= y1 < y2 <= _GRID):
            flags.setdefault("boxes_out_of_range", f"{found[0][:60]!r} is no box within 0..{_GRID}")
    if "<|det|>" in text and text.rfind("<|/det|>") < text.rfind("<|det|>"):
        flags.setdefault("boxes_malformed", "the list of boxes does not end")
    yield from flags.items()
