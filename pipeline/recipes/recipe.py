"""What a recipe is: prompts for one opened image -> labels of one table.

A recipe knows prompts and how its answers are parsed; it knows neither the engine (only the few fields of an answer)
nor where labels are written.
"""

import asyncio
import hashlib
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from model.constraint_specs import ConstraintSpec
from schemas.recipe_specs import Decoding
from schemas.rows import ImageRow, Label

Part = str | Mapping[str, str]
"""Template text, or `{"type": "text", "text": ...}` for text that comes from data and must stay ordinary text."""

EarlierLabels = Mapping[str, Sequence[Label]]
"""Labels of the recipes that ran before on the same image, by recipe name."""


class Answer(Protocol):
    """One completion, as far as recipes look at it."""

    @property
    def text(self) -> str: ...
    @property
    def finish_reason(self) -> str: ...
    @property
    def mean_logprob(self) -> float: ...
    @property
    def num_prompt_tokens(self) -> int: ...
    @property
    def num_output_tokens(self) -> int: ...


class View(Protocol):
    """An opened image that answers prompts."""

    async def generate(self, text: Sequence[Part], **params: Any) -> Answer: ...


def data(text: str) -> Part:
    return {"type": "text", "text": text}


@dataclass(frozen=True, kw_only=True)
class Step:
    """One prompt of a recipe on one image; `item` is its place among them."""

    item: int
    prompt: tuple[Part, ...]
    constraint: ConstraintSpec | None = None
    """The form that the answer must have, if any."""

    @property
    def prompt_text(self) -> str:
        return "".join(part if isinstance(part, str) else part["text"] for part in self.prompt)


class Recipe(ABC):
    """One task. Subclasses say which steps an image gets and what columns an answer becomes."""

    name: str
    table: str
    version: str
    """Changes when the prompts or the parser of the built-in recipe change, so that its digest does."""

    def __init__(self, spec: Decoding, *, checkpoint_digest: str, needed_digests: Sequence[str] = ()) -> None:
        """Args:
        needed_digests: digests of the recipes whose labels this one reads: what changes them changes this one.
        """
        self.spec = spec
        record = {
            "spec": spec.model_dump(mode="json"),
            "version": self.version,
            "checkpoint": checkpoint_digest,
            "needs": list(needed_digests),
        }
        self.digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode()).hexdigest()[:16]

    @classmethod
    def needs(cls, spec: Any) -> tuple[str, ...]:
        """Names of the recipes whose labels a recipe of this spec reads; they run before it."""
        return ()

    @abstractmethod
    def steps(self, row: ImageRow, earlier: EarlierLabels) -> list[Step]:
        """The prompts for one image; none where the image gives no reason to ask."""

    @abstractmethod
    def parse(self, answer: Answer, step: Step, row: ImageRow) -> "Parsed":
        """The columns of the label's own table."""

    async def label(self, view: View, row: ImageRow, earlier: EarlierLabels) -> list[Label]:
        """Runs all steps on the opened image, concurrently; labels come in the order of the steps.

        All or nothing: the first step that raises ends the others, and its error is raised.
        """
        runs = [asyncio.ensure_future(self._run(view, row, step)) for step in self.steps(row, earlier)]
        try:
            return list(await asyncio.gather(*runs))
        finally:
            for run in runs:
                run.cancel()  # those that are done do not notice; the others would answer nobody

    async def _run(self, view: View, row: ImageRow, step: Step) -> Label:
        spec = self.spec
        answer = await view.generate(
            step.prompt,
            max_new_tokens=spec.max_new_tokens,
            temperature=spec.temperature,
            top_p=spec.top_p,
            seed=self._seed(row, step),
            constraint=step.constraint,
        )
        parsed = self.parse(answer, step, row)
        flags = ("output_truncated",) if answer.finish_reason == "length" else ()
        return Label(
            recipe=self.name,
            recipe_digest=self.digest,
            table=self.table,
            item=step.item,
            prompt=step.prompt_text,
            num_prompt_tokens=answer.num_prompt_tokens,
            num_output_tokens=answer.num_output_tokens,
            finish_reason=answer.finish_reason,
            mean_logprob=answer.mean_logprob,
            flags=(*flags, *parsed.flags),
            values=parsed.values,
        )

    def _seed(self, row: ImageRow, step: Step) -> int:
        """Of the image's content, not its place: a rerun, or the same image elsewhere, samples the same."""
        text = f"{self.spec.seed}\0{row.image_sha256}\0{self.name}\0{step.item}"
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")


@dataclass(frozen=True, kw_only=True)
class Parsed:
    values: Mapping[str, Any]
    flags: tuple[str, ...] = ()


def plain_text(answer: Answer) -> tuple[str, tuple[str, ...]]:
    """An answer that is prose: trimmed, and flagged when nothing is left."""
    text = answer.text.strip()
    return text, () if text else ("output_empty",)
