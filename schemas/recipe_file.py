"""A recipe file (YAML) -> `RecipeFile`: what is asked of the model about one sample, and how its answers are judged.

A recipe is data: prompts, steps, parameters, gates. What data cannot say, how an answer becomes columns, is one
function that `parse` names. Does not know which recipes there are, nor how they run.
"""

import string
from typing import Annotated, Literal

import pyarrow as pa
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from schemas.gates import GatesSpec
from schemas.job_problems import refuse
from schemas.recipe_specs import SLUG, Real, Slug, Spec, Text, Texts, Whole, not_empty
from schemas.tables import OWN

FACTS = ("metadata", "place", "original")
"""What a hint may quote beside other recipes: facts that came with the image."""

OF_THE_ROW = ("questions", "queries", "turns", "marks", "labels")
"""What a step may be repeated for, beside the lines of an earlier step."""

_IN_PLACE_OF = {
    "questions": {"question"},
    "queries": {"query"},
    "turns": {"question"},
    "marks": {"question", "mark"},
    "labels": {"text"},
}


def placeholders(template: str) -> list[str]:
    """The names in braces, in order. Raises ValueError for braces that name nothing."""
    found = []
    for _, name, form, conversion in string.Formatter().parse(template):
        if name is None:
            continue
        if not SLUG.fullmatch(name) or form or conversion:
            raise ValueError(f"{{{name}}} in {template[:60]!r} is no name: write {{{{ and }}}} for braces in the text")
        found.append(name)
    return found


def _template(text: str) -> str:
    try:
        placeholders(text)
    except ValueError as error:
        raise refuse(str(error)) from None
    return text


Template = Annotated[Text, AfterValidator(_template)]
Templates = Annotated[tuple[Template, ...], AfterValidator(not_empty)]


class LoopStopSpec(Spec):
    """When an answer is cut short because it goes round in circles."""

    max_period_tokens: Whole = Field(default=64, ge=1)
    """Longest piece whose repetition counts."""
    min_repeats: Whole = Field(default=8, ge=2)
    """So often the piece must have come in a row,"""
    min_tokens: Whole = Field(default=96, ge=2)
    """and over so many tokens."""


class Generation(Spec):
    """How answers are decoded; a job may set the first four."""

    max_new_tokens: Whole = Field(default=256, ge=1)
    temperature: Real = Field(default=0.0, ge=0)
    top_p: Real = Field(default=1.0, gt=0, le=1)
    repetition_penalty: Real = Field(default=1.0, gt=0)
    stop_on_loop: LoopStopSpec | None = LoopStopSpec()


class Retry(Spec):
    """One more decode of an answer that a gate sent back, with what is given here instead of the step's own."""

    temperature: Real | None = Field(default=None, ge=0)
    top_p: Real | None = Field(default=None, gt=0, le=1)
    repetition_penalty: Real | None = Field(default=None, gt=0)
    other_prompt: bool = False
    """Ask in the words of the next variant."""
    add: Template | None = None
    """Words put after the prompt."""
    constrain: bool = False
    """Bind the answer to its form, where the step does not do so anyway."""

    @model_validator(mode="after")
    def _changes_something(self) -> "Retry":
        if not self.model_dump(exclude_defaults=True):
            raise refuse("changes nothing, and the same question has the same answer: give a temperature, for example")
        return self


class Style(Spec):
    """One way to ask. A plain list of prompts stands for `{prompts: <list>}`."""

    prompts: Templates
    """Variants; which of them a sample gets follows from the sample."""
    final_answer: Text | None = None
    """Words that a line with the final answer begins with; what is before it is the reasoning."""


def _style_or_prompts(value: object) -> object:
    return {"prompts": value} if isinstance(value, list | tuple) else value


class StepFile(Spec):
    """One question to the model, or one for each of a list."""

    name: Slug = "answer"
    """Later steps quote the answer as `{name}`."""
    each: Slug | None = None
    """Ask once for each of the sample's `questions`, `queries`, `turns` or `marks`, of the `labels` of another recipe,
    or of the lines that an earlier step answered."""
    images: Literal["all", "none", "marked"] = "all"
    """What is looked at: the sample's images; nothing; or its first image with one mark drawn in."""
    prompts: Templates | None = None
    """Variants of the prompt; stands for the one style `plain`."""
    styles: dict[Slug, Annotated[Style, BeforeValidator(_style_or_prompts)]] = Field(default={})
    """Ways to ask, of which a job chooses one; the first is the default."""
    hints: dict[Slug, Template] = Field(default={})
    """By name, words added to the prompt where a job asks for them and there is something to quote: the text of another
    recipe (`ocr`), or `metadata`, `place` and `original`, which came with the image."""
    default_hints: tuple[Slug, ...] = ()
    """Those that are added unless a job says otherwise."""
    answer: Literal["text", "lines", "boxes", "choice"] = "text"
    """What it is: prose; a list, one entry a line; a list of boxes; one of `choices`."""
    constrain: bool = True
    """Bind boxes and choices to their form while they are decoded."""
    box_label: Template | None = None
    """What the boxes of the answer are called."""
    box_image: Literal["first", "last"] = "first"
    """Which of the sample's images the boxes lie in."""
    max_boxes: Whole = Field(default=16, ge=1)
    choices: Texts = ()
    generation: Generation = Generation()
    gates: GatesSpec = GatesSpec()
    """What an answer must not be."""
    retries: tuple[Retry, ...] = ()
    """What is tried, in order, when a gate that asks for it has sent an answer back."""

    @model_validator(mode="after")
    def _is_whole(self) -> "StepFile":
        if bool(self.prompts) == bool(self.styles):
            raise refuse("needs prompts (a list) or styles (lists by name), and not both")
        if (self.answer == "choice") != bool(self.choices):
            raise refuse("choices go with answer: choice, and it needs them", "choices")
        if self.answer == "boxes" and self.box_label is None:
            raise refuse("boxes need a box_label, for example {query}", "box_label")
        for hint in self.default_hints:
            if hint not in self.hints:
                raise refuse(f"{hint} is not among the hints: {', '.join(self.hints) or 'there are none'}")
        if (self.images == "marked") != (self.each == "marks"):
            raise refuse("images: marked goes with each: marks, one mark in each picture", "images")
        return self

    @property
    def ways(self) -> dict[str, Style]:
        """All styles, the default first."""
        return self.styles or {"plain": Style(prompts=self.prompts or ())}

    @property
    def templates(self) -> list[str]:
        """All but the hints'."""
        prompts = [prompt for style in self.ways.values() for prompt in style.prompts]
        added = [retry.add for retry in self.retries if retry.add]
        return [*prompts, *added, *([self.box_label] if self.box_label else [])]


class RecipeFile(Spec):
    """A recipe, complete and checked."""

    name: Slug
    """As it stands in the tables' column `recipe`, unless a job gives another `id`."""
    about: Text
    """One sentence for whoever looks for a recipe."""
    table: Literal[tuple(OWN)]  # type: ignore[valid-type]
    """The table that its labels are rows of."""
    parse: Text | None = None
    """What makes the table's columns of an answer: by default what the table has; or `FILE.py:FUNCTION`, relative to
    this file: it is called with the answer's text and a mapping of what was asked, and gives a mapping of columns."""
    values: dict[Slug, str] = Field(default={})
    """Columns that are the same in every row, e.g. the `format` of a transcription."""
    min_images: Whole = Field(default=1, ge=0)
    """Samples with fewer images are skipped,"""
    max_images: Whole | None = Field(default=None, ge=0)
    """and those with more, where the prompts speak of so many."""
    count: Whole | None = Field(default=None, ge=1)
    """Default of `{count}`, for recipes that are asked for so many things; a job may give another."""
    steps: Annotated[tuple[StepFile, ...], AfterValidator(not_empty)]
    """In order; the answers of the last one are the labels."""

    @model_validator(mode="after")
    def _values_are_texts_of_columns(self) -> "RecipeFile":
        known = [field.name for field in OWN[self.table] if pa.types.is_string(field.type)]
        for name in self.values:
            if name not in known:
                listed = ", ".join(known)
                raise refuse(f"{name} is no column of a label table with texts: {self.table} has {listed}", "values")
        return self

    @model_validator(mode="after")
    def _some_number_of_images_will_do(self) -> "RecipeFile":
        if self.max_images is not None and self.max_images < self.min_images:
            raise refuse(f"is less than min_images, which is {self.min_images}", "max_images")
        return self

    @model_validator(mode="after")
    def _placeholders_stand_for_something(self) -> "RecipeFile":
        before: list[StepFile] = []
        for index, step in enumerate(self.steps):
            if step.name in [one.name for one in before] or step.name in OF_THE_ROW:
                raise refuse(f"a step cannot be called {step.name}: the name is taken", "steps", index, "name")
            lists = [one.name for one in before if one.answer == "lines"]
            if step.each is not None and step.each not in (*OF_THE_ROW, *lists):
                known = ", ".join((*OF_THE_ROW, *lists))
                raise refuse(f"{step.each} is nothing to repeat a step for: {known}", "steps", index, "each")
            self._check_templates(index, step, before)
            before.append(step)
        return self

    def _check_templates(self, index: int, step: StepFile, before: list[StepFile]) -> None:
        known = {"count"} if self.count is not None else set()
        known |= {one.name for one in before if one.each is None}
        known |= _IN_PLACE_OF.get(step.each or "", {"each"} if step.each else set())
        for hint, template in step.hints.items():
            if placeholders(template) != [hint]:
                raise refuse(f"a hint quotes what it is named after, once: {{{hint}}}", "steps", index, "hints", hint)
            if hint in known:
                raise refuse(f"{hint} is the name of a step already", "steps", index, "hints", hint)
        for template in step.templates:
            for name in placeholders(template):
                if name not in known:
                    listed = ", ".join(f"{{{one}}}" for one in sorted(known)) or "none"
                    raise refuse(
                        f"{{{name}}} in {template[:60]!r} stands for nothing here: known are {listed}", "steps", index
                    )

    def takes(self, num_images: int) -> bool:
        """Whether a sample with so many images is labelled."""
        return self.min_images <= num_images and (self.max_images is None or num_images <= self.max_images)

    @property
    def last(self) -> StepFile:
        return self.steps[-1]

    @property
    def hints(self) -> dict[str, bool]:
        """All hints of all steps, and whether each is added by default."""
        return {hint: hint in step.default_hints for step in self.steps for hint in step.hints}

    @property
    def styles(self) -> list[str]:
        """Names of the ways to ask, the default first; those of the step that has several."""
        return next((list(step.styles) for step in self.steps if len(step.styles) > 1), [])

    def repeats_for(self) -> set[str]:
        """What of the sample its steps are repeated for."""
        return {step.each for step in self.steps if step.each in OF_THE_ROW}
