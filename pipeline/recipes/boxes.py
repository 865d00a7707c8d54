"""Text with `<|ref|>label<|/ref|><|det|>[[x1, y1, x2, y2], ...]<|/det|>` -> boxes in pixels, or the reason why not.

Parsed with a pattern, never evaluated: the text is a model's output, and a model can be made to write anything.
"""

import re
from dataclasses import dataclass

GRID = 999
"""Coordinates are integers 0..999 of each side, whatever the image's size."""

# Every repetition below is possessive: what it took it keeps, so that no text takes more than linear time.
_UNTIL_MARK = r"(?:[^<]|<(?!\|))*+"
"""Neither a label nor a list of boxes reaches over a control token: one that does not end takes nothing of the next."""
_DETECTION = re.compile(
    rf"(?:<\|ref\|>(?P<label>{_UNTIL_MARK})<\|/ref\|>\s*+)?<\|det\|>(?P<boxes>{_UNTIL_MARK})(?P<end><\|/det\|>)?"
)
_BOXES = re.compile(rf"<\|det\|>{_UNTIL_MARK}(?:<\|/det\|>)?")
_CONTROL_MARK = re.compile(r"<\|/?(?:ref|det|grounding)\|>")
_NUMBER = r"\s*+[0-9]{1,4}+\s*+"
_BOX = rf"\[{_NUMBER},{_NUMBER},{_NUMBER},{_NUMBER}\]\s*+"
_ONE_BOX = re.compile(_BOX)
_LIST_OF_BOXES = re.compile(rf"\s*+\[\s*+(?:{_BOX}(?:,\s*+{_BOX})*+)?+\]\s*+")


@dataclass(frozen=True, kw_only=True)
class Box:
    """Float pixels of the oriented original: left, top, right, bottom."""

    label: str
    x1: float
    y1: float
    x2: float
    y2: float


@dataclass(frozen=True, kw_only=True)
class ParsedBoxes:
    """`flags`: "boxes_malformed" where some of the text is no list of four integers, "boxes_out_of_range" where a box
    lies outside 0..999 or has no area, "boxes_absent" where the answer holds no detection at all."""

    boxes: tuple[Box, ...]
    flags: tuple[str, ...]


def parse_boxes(text: str, *, default_label: str, width_px: int, height_px: int) -> ParsedBoxes:
    """All well-formed boxes of an answer, in order. What is malformed is left out and flagged, never guessed."""
    boxes: list[Box] = []
    flags: dict[str, None] = {}
    detections = list(_DETECTION.finditer(text))
    if not detections:
        flags["boxes_absent"] = None
    for detection in detections:
        if not detection["end"] or not _LIST_OF_BOXES.fullmatch(detection["boxes"]):
            flags["boxes_malformed"] = None
        for box in _ONE_BOX.findall(detection["boxes"]):
            x1, y1, x2, y2 = (int(value) for value in re.findall("[0-9]+", box))
            if not (0 <= x1 < x2 <= GRID and 0 <= y1 < y2 <= GRID):
                flags["boxes_out_of_range"] = None
                continue
            boxes.append(
                Box(
                    label=(detection["label"] or "").strip() or default_label.strip(),
                    x1=x1 / GRID * width_px,
                    y1=y1 / GRID * height_px,
                    x2=x2 / GRID * width_px,
                    y2=y2 / GRID * height_px,
                )
            )
    return ParsedBoxes(boxes=tuple(boxes), flags=tuple(flags))


def without_marks(text: str) -> str:
    """An answer as it reads: boxes and the marks around labels taken out."""
    return " ".join(_CONTROL_MARK.sub("", _BOXES.sub("", text)).split())
