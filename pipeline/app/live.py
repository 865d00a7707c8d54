"""A watch that remembers: every answer under way, its text so far, and what its gates have sent back."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from pipeline.quality import Finding
from pipeline.recipes.watch import Attempt


@dataclass(kw_only=True)
class LiveAnswer:
    """`attempt` is the latest one, and `text` its text."""

    attempt: Attempt
    text: str = ""
    is_done: bool = False
    sent_back: list[str] = field(default_factory=list)
    """Why earlier attempts were not taken, in words."""


class LiveAnswers:
    """A `Watch`. For one event loop."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str, int], LiveAnswer] = {}
        self.version = 0
        """Grows with every change."""

    def begins(self, attempt: Attempt) -> Callable[[str], None]:
        self.version += 1
        key = (attempt.recipe, attempt.step, attempt.item)
        earlier = self._answers.get(key)
        answer = LiveAnswer(attempt=attempt, sent_back=[*earlier.sent_back] if earlier else [])
        self._answers[key] = answer

        def on_text(piece: str) -> None:
            self.version += 1
            answer.text += piece

        return on_text

    def ends(self, attempt: Attempt, findings: Sequence[Finding]) -> None:
        self.version += 1
        answer = self._answers[(attempt.recipe, attempt.step, attempt.item)]
        answer.is_done = True
        answer.sent_back += [f"{one.gate}: {one.detail}" for one in findings if one.then in ("retry", "reject")]

    def answers(self) -> list[LiveAnswer]:
        """In the order in which they began."""
        return list(self._answers.values())
