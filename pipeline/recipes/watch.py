"""What somebody sees who watches the recipes of one sample at work: each attempt at an answer, and what came of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

from pipeline.quality import Finding


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """One decoding. Several may be under way at once; `(recipe, step, item)` is the same for those of one answer."""

    recipe: str
    step: str
    """"" where the recipe has only one."""
    item: int
    question: str
    """What the sample or an earlier step asks; "" where the recipe's own words are all."""
    number: int
    """1 for the first; a gate sent back the one before."""
    max_attempts: int


class Watch(Protocol):
    """Both are called on the event loop of whoever labels, and must be quick."""

    def begins(self, attempt: Attempt) -> Callable[[str], None]:
        """What is called with each further piece of the answer's text."""

    def ends(self, attempt: Attempt, findings: Sequence[Finding]) -> None:
        """The answer is whole, and this is what its gates have found. Not called for one that raised."""
