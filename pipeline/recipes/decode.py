"""One thing to ask about a sample -> an answer that the step's gates accept, decoded again where they send it back.

The ladder is bounded: as many further attempts as the step lists retries. Of several answers none of which is without
fault, the one with the least is taken, with its flags.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from model.constraint_specs import BoxList, Choice, ConstraintSpec
from model.loops import LoopStop
from pipeline.metric_names import ANSWERS, REDECODES
from pipeline.metrics import recorder
from pipeline.quality import Finding, Judged, judge
from pipeline.recipes.asks import Ask
from pipeline.recipes.files import LoadedRecipe
from pipeline.recipes.parsers import Answered, Parsed, parse, place_of_boxes
from pipeline.recipes.prompts import Part, Wording, data, fill, stable_int, style_of, text_of, worded
from pipeline.recipes.user_columns import user_view, with_user_columns
from pipeline.recipes.watch import Attempt, Watch
from schemas.errors import ErrorKind, RowError
from schemas.recipe_file import Retry, StepFile
from schemas.recipe_specs import RecipeSpec
from schemas.rows import ImageRow, Mark

Message = Mapping[str, Any]


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
    """Images, opened once, that answer prompts."""

    async def generate(self, text: Sequence[Part], **params: Any) -> Answer: ...
    async def chat(self, messages: Sequence[Message], **params: Any) -> Answer: ...


class Views(Protocol):
    """The views of one sample. Each is opened when it is first asked for."""

    async def all_images(self) -> View: ...
    async def no_images(self) -> View: ...
    async def marked(self, mark: Mark) -> View:
        """The first image, with the mark drawn in."""


class RejectedAnswerError(ValueError):
    """No attempt passed a gate that rejects."""

    def __init__(self, message: str) -> None:
        self.error = RowError(kind=ErrorKind.ANSWER_REJECTED, message=message)
        super().__init__(message)


@dataclass(frozen=True, kw_only=True)
class Accepted:
    """One answer and what made it."""

    ask: Ask
    wording: Wording
    answer: Answer
    text: str
    values: Mapping[str, Any]
    flags: tuple[str, ...]
    parameters: Mapping[str, Any]
    num_attempts: int


@dataclass(frozen=True, kw_only=True)
class _Attempt:
    accepted: Accepted
    findings: tuple[Finding, ...]

    @property
    def faults(self) -> tuple[int, int, int]:
        """Fewest first: what would reject it, what would send it back, what is merely to be said of it."""
        by_consequence = [finding.then for finding in self.findings]
        return by_consequence.count("reject"), by_consequence.count("retry"), by_consequence.count("flag")

    @property
    def sent_back_by(self) -> str:
        """The first gate that does not let it pass; "" if all do."""
        return next((finding.gate for finding in self.findings if finding.then != "flag"), "")


@dataclass(frozen=True, kw_only=True)
class Decode:
    """One step of a recipe on one sample."""

    recipe: LoadedRecipe
    name: str
    spec: RecipeSpec
    step: StepFile
    row: ImageRow
    quoted: Mapping[str, str] = field(default_factory=dict)
    """What hints, `{count}` and earlier steps stand for."""
    flags: tuple[str, ...] = ()
    """Of every answer, whatever it says."""
    watch: Watch | None = None

    async def answer(self, views: Views, ask: Ask, *, answered: Mapping[int | None, str] | None = None) -> Accepted:
        """Args:
            answered: of a conversation, the new answers to its earlier turns.

        Raises:
            RejectedAnswerError: see there.
        """
        best: _Attempt | None = None
        sent_back_by = ""
        for number, retry in enumerate((None, *self.step.retries)):
            if sent_back_by:
                recorder().add(REDECODES, recipe=self.name, gate=sent_back_by)
            attempt = await self._attempt(views, ask, retry, number, answered or {})
            recorder().add(ANSWERS, recipe=self.name)
            if best is None or attempt.faults < best.faults:
                best = attempt
            sent_back_by = attempt.sent_back_by
            if not sent_back_by:
                break
        assert best is not None
        for finding in best.findings:
            if finding.then == "reject":
                text = best.accepted.answer.text
                raise RejectedAnswerError(f"{finding.gate}: {finding.detail}; the answer begins {text[:80]!r}")
        return best.accepted

    async def _attempt(
        self, views: Views, ask: Ask, retry: Retry | None, number: int, answered: Mapping[int | None, str]
    ) -> _Attempt:
        values = {**self.quoted, **ask.values}
        wording = worded(
            self.step,
            self.spec,
            values,
            sample_key=self._random_key(ask),
            others=sum(one.other_prompt for one in self.step.retries[:number]),
            add=(retry.add if retry else None) or "",
        )
        box_label = text_of(fill(self.step.box_label, values)) if self.step.box_label else ""
        constraint = self._constraint(box_label) if self.step.constrain or (retry and retry.constrain) else None
        params = {**self._generation(retry), "seed": self._seed(ask, number)}
        seen = self._seen(ask, number)
        watched = {"on_text": self.watch.begins(seen)} if self.watch is not None else {}
        answer = await self._ask(views, ask, wording, answered, {**params, "constraint": constraint, **watched})
        parsed = self._parsed(answer, ask, wording, box_label)
        findings = judge(self._judged(answer, ask, wording, parsed), self.step.gates)
        if self.watch is not None:
            self.watch.ends(seen, findings)
        flags = (*_FINISHED.get(answer.finish_reason, ()), *parsed.flags, *(finding.flag for finding in findings))
        accepted = Accepted(
            ask=ask,
            wording=wording,
            answer=answer,
            text=parsed.text,
            values=parsed.values,
            flags=tuple(dict.fromkeys((*self.flags, *flags))),
            parameters={**params, "stop_on_loop": bool(params["stop_on_loop"]), "constrained": constraint is not None},
            num_attempts=number + 1,
        )
        return _Attempt(accepted=accepted, findings=findings)

    async def _ask(
        self,
        views: Views,
        ask: Ask,
        wording: Wording,
        answered: Mapping[int | None, str],
        params: Mapping[str, Any],
    ) -> Answer:
        if ask.mark is not None:
            view = await views.marked(ask.mark)
        elif self.step.images == "none" or not self.row.images:
            view = await views.no_images()
        else:
            view = await views.all_images()
        if ask.turn is None:
            return await view.generate(wording.prompt, **params)
        return await view.chat(conversation(self.row, ask.turn, wording.prompt, answered), **params)

    def _seen(self, ask: Ask, number: int) -> Attempt:
        return Attempt(
            recipe=self.name,
            step=self.step.name if len(self.recipe.file.steps) > 1 else "",
            item=ask.item,
            question=ask.question,
            number=number + 1,
            max_attempts=1 + len(self.step.retries),
        )

    def _generation(self, retry: Retry | None) -> dict[str, Any]:
        """The step's parameters, under the job's, under the retry's."""
        generation, loop = self.step.generation, self.step.generation.stop_on_loop
        params = {name: getattr(generation, name) for name in _PARAMETERS}
        for other in (self.spec, retry):
            given = {name: getattr(other, name, None) for name in _PARAMETERS}
            params |= {name: value for name, value in given.items() if value is not None}
        return {**params, "stop_on_loop": LoopStop(**loop.model_dump()) if loop else None}

    def _constraint(self, box_label: str) -> ConstraintSpec | None:
        if self.step.answer == "boxes":
            return BoxList(label=box_label, max_boxes=self.spec.max_boxes or self.step.max_boxes)
        return Choice(options=self.step.choices) if self.step.answer == "choice" else None

    def _parsed(self, answer: Answer, ask: Ask, wording: Wording, box_label: str) -> Parsed:
        if self.step is not self.recipe.file.last:
            return Parsed(values={}, text=answer.text.strip())
        style_name, style = style_of(self.step, self.spec)
        answered = Answered(
            text=answer.text,
            step=self.step,
            style_name=style_name,
            style=style,
            ask=ask,
            row=self.row,
            instruction=wording.instruction,
            box_label=box_label,
        )
        parsed, function = parse(str(self.recipe.file.table), answered), self.recipe.user_function()
        if function is None:
            return parsed
        return with_user_columns(parsed, str(self.recipe.file.table), function(answer.text, user_view(answered)))

    def _judged(self, answer: Answer, ask: Ask, wording: Wording, parsed: Parsed) -> Judged:
        image = self.row.images[place_of_boxes(self.step, self.row)] if self.row.images else None
        return Judged(
            text=parsed.text,
            finish_reason=answer.finish_reason,
            mean_logprob=answer.mean_logprob,
            num_output_tokens=answer.num_output_tokens,
            instruction=wording.instruction,
            question=ask.question,
            ocr_text=self.quoted.get("ocr") or None,
            boxes=parsed.boxes,
            width_px=image.width_px if image else 0,
            height_px=image.height_px if image else 0,
            code_language=_notation(self.recipe.file.values),
            parse_flags=parsed.flags,
        )

    def _random_key(self, ask: Ask) -> str:
        """Of the images' content, not of the sample's place: a rerun, or the same image elsewhere, draws the same."""
        content = "\0".join(image.sha256 for image in self.row.images) or self.row.sample_id
        return f"{content}\0{self.name}\0{self.step.name}\0{ask.item}"

    def _seed(self, ask: Ask, number: int) -> int:
        return stable_int(str(self.spec.seed), self._random_key(ask), str(number))


_PARAMETERS = ("max_new_tokens", "temperature", "top_p", "repetition_penalty")
_NOTATION_COLUMNS = ("language", "format")
_FINISHED = {"length": ("output_truncated",), "loop": ("output_looped",)}


def _notation(values: Mapping[str, str]) -> str | None:
    """What code or markup the recipe's answers are in, for the gate that reads them."""
    return next((values[column] for column in _NOTATION_COLUMNS if column in values), None)


def conversation(row: ImageRow, turn: int, prompt: Sequence[Part], answered: Mapping[int | None, str]) -> list[Message]:
    """The messages up to one turn of the assistant's, which is to be given: the user's turns with their images, the
    assistant's in their new words where they have some, and `prompt` as the last user turn."""
    messages: list[Message] = []
    for place, message in enumerate(row.turns[:turn]):
        marks: list[Part] = [part for _ in message.images for part in ({"type": "image"}, "\n")]
        text = [data(answered.get(place, message.text))] if message.text or place in answered else []
        messages.append({"role": message.role, "content": [*marks, *(prompt if place == turn - 1 else text)]})
    return [*messages, {"role": "assistant", "content": ""}]
