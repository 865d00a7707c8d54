"""What form an answer must have; travels with the sampling parameters. Knows no tokens."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class BoxList:
    """`<|ref|>label<|/ref|><|det|>[[x1, y1, x2, y2], ...]<|/det|>` with 0 to `max_boxes` boxes.

    Coordinates are integers 0..999 with x1 < x2 and y1 < y2. The label is data: whatever it spells, it stays letters.
    """

    label: str
    max_boxes: int = 16

    def __post_init__(self) -> None:
        _require_unicode("label", self.label)
        if not isinstance(self.max_boxes, int) or self.max_boxes < 1:
            raise ValueError(f"max_boxes is {self.max_boxes!r}, but must be an integer of at least 1")


@dataclass(frozen=True, kw_only=True)
class Choice:
    """Exactly one of the texts, as it stands. One may begin another: the end of sentence tells them apart."""

    options: tuple[str, ...]

    def __post_init__(self) -> None:
        if not isinstance(self.options, tuple) or not self.options:
            raise ValueError(f"options is {self.options!r}, but must be a tuple of at least one text")
        for option in self.options:
            _require_unicode("an option", option)
        if "" in self.options or len(set(self.options)) < len(self.options):
            raise ValueError(f"options is {self.options!r}, but its texts must be different and none of them empty")


ConstraintSpec = BoxList | Choice


def _require_unicode(name: str, text: str) -> None:
    if not isinstance(text, str):
        raise ValueError(f"{name} is {text!r}, but must be a text")
    try:
        text.encode()
    except UnicodeEncodeError:  # a lone surrogate, which JSON can spell
        raise ValueError(f"{name} is no valid Unicode: {text[:80]!r}") from None
