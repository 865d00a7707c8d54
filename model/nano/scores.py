"""Labels of scenes and their truth -> exact scores per task.

Knows nothing of models: it judges text and boxes, wherever they come from.
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from model.nano.scene_language import parse_caption

PixelBox = Sequence[float]
"""x1, y1, x2, y2 in pixels."""

MIN_IOU = 0.5


@dataclass
class Tally:
    """A share: how many of how many."""

    right: float = 0
    total: float = 0

    def add(self, right: float, total: float = 1) -> None:
        self.right += right
        self.total += total

    @property
    def share(self) -> float:
        return self.right / self.total if self.total else 0.0


@dataclass
class Scores:
    """Sums over a set of scenes; empty to begin with."""

    named: Tally = field(default_factory=Tally)
    """Objects that captions name rightly, of those they name: precision."""
    found: Tally = field(default_factory=Tally)
    """Objects that captions name rightly, of those that are there: recall."""
    captions: Tally = field(default_factory=Tally)
    """Captions that are right word for word."""
    characters: dict[str, Tally] = field(default_factory=dict)
    """By print ("small", "large", "none" where nothing is written): edits that transcriptions need, of characters."""
    answers: Tally = field(default_factory=Tally)
    boxes: dict[int, Tally] = field(default_factory=dict)
    """By number of objects in the scene: phrases that fit one thing whose box is found."""
    misplaced: Tally = field(default_factory=Tally)
    """Phrases that fit one thing whose box fits another one instead."""
    absent: Tally = field(default_factory=Tally)
    """Phrases that fit nothing, and get no box."""
    several: Tally = field(default_factory=Tally)
    """Boxes found, of phrases that fit several things."""

    def add_caption(self, caption: str, *, truth: str, objects: Iterable[tuple[str, str]]) -> None:
        """Args:
        objects: (color, shape) of each object that is there.
        """
        named, there = Counter(parse_caption(caption)), Counter(objects)
        num_right = (named & there).total()
        self.named.add(num_right, named.total())
        self.found.add(num_right, there.total())
        self.captions.add(caption == truth)

    def add_text(self, text: str, *, truth: str, print_size: str) -> None:
        self.characters.setdefault(print_size, Tally()).add(edit_distance(text, truth), len(truth))

    def add_answer(self, answer: str, *, truth: str) -> None:
        self.answers.add(answer == truth)

    def add_boxes(
        self, boxes: Sequence[PixelBox], *, truth: Sequence[PixelBox], others: Sequence[PixelBox], num_objects: int
    ) -> None:
        """Args:
        truth: what the phrase fits; others: the other things of the scene.
        """
        if not truth:
            self.absent.add(not boxes)
        elif len(truth) > 1:
            self.several.add(sum(any(_fits(box, one) for box in boxes) for one in truth), len(truth))
        else:
            is_found = len(boxes) == 1 and _fits(boxes[0], truth[0])
            self.boxes.setdefault(num_objects, Tally()).add(is_found)
            self.misplaced.add(not is_found and any(_fits(box, one) for box in boxes[:1] for one in others))

    @property
    def object_f1(self) -> float:
        precision, recall = self.named.share, self.found.share
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    @property
    def num_edits(self) -> float:
        return sum(tally.right for tally in self.characters.values())

    @property
    def character_error_rate(self) -> float:
        """Over all lines of all scenes; what is read where nothing is written counts as well."""
        return self.num_edits / max(1, sum(tally.total for tally in self.characters.values()))

    @property
    def box_share(self) -> float:
        return sum(one.right for one in self.boxes.values()) / max(1, sum(one.total for one in self.boxes.values()))

    def lines(self) -> list[str]:
        """One figure a line, for people."""
        by_print = ", ".join(f"{name} print {one.share:.3f}" for name, one in self._prints() if one.total)
        by_count = ", ".join(f"{count}: {one.share:.3f}" for count, one in sorted(self.boxes.items()))
        return [
            f"caption: object F1 {self.object_f1:.3f} (precision {self.named.share:.3f}, recall "
            f"{self.found.share:.3f}), right word for word {self.captions.share:.3f}",
            f"ocr: character error rate {self.character_error_rate:.3f} ({by_print})",
            f"qa: exact {self.answers.share:.3f} of {self.answers.total:.0f}",
            f"grounding: IoU > {MIN_IOU} {self.box_share:.3f} (by number of objects {by_count}); "
            f"on another object {self.misplaced.share:.3f}; absent ones left out {self.absent.share:.3f}; "
            f"several found {self.several.share:.3f}",
        ]

    def _prints(self) -> list[tuple[str, Tally]]:
        return sorted(self.characters.items())


def edit_distance(one: str, other: str) -> int:
    """Levenshtein: insertions, deletions and replacements of a character cost 1 each."""
    row = list(range(len(other) + 1))
    for i, char in enumerate(one, start=1):
        diagonal, row[0] = row[0], i
        for j, wanted in enumerate(other, start=1):
            diagonal, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, diagonal + (char != wanted))
    return row[-1]


def iou(one: PixelBox, other: PixelBox) -> float:
    """Intersection over union; 0 where both are empty."""
    width = min(one[2], other[2]) - max(one[0], other[0])
    height = min(one[3], other[3]) - max(one[1], other[1])
    shared = max(0.0, width) * max(0.0, height)
    whole = sum((box[2] - box[0]) * (box[3] - box[1]) for box in (one, other)) - shared
    return shared / whole if whole > 0 else 0.0


def _fits(box: PixelBox, truth: PixelBox) -> bool:
    return iou(box, truth) > MIN_IOU
