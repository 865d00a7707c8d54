"""The `recipes` of a job file -> one frozen spec each: what is asked of the model, and how it decodes.

Does not know the prompts themselves, nor how an answer is parsed and judged.
"""

import re
from collections.abc import Mapping
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.job_problems import refuse, shown

SLUG = re.compile(r"[a-z0-9][a-z0-9_-]*")


_Value = TypeVar("_Value")


class Spec(BaseModel):
    """Base of all parts of a job file: frozen, and closed to keys that nobody reads."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        hide_input_in_errors=True,
        use_attribute_docstrings=True,
    )


def _no_bool(value: object) -> object:
    """Pydantic reads yes and no as 1 and 0."""
    if isinstance(value, bool):
        raise refuse(f"must be a number, got {str(value).lower()}")
    return value


def _not_blank(text: str) -> str:
    if not text.strip():
        raise refuse("must not be empty")
    return text


def _slug(text: str) -> str:
    if not SLUG.fullmatch(text):
        raise refuse(f"must hold lower case letters, digits, '-' and '_' only, got {text!r}")
    return text


def not_empty(values: tuple[_Value, ...]) -> tuple[_Value, ...]:
    """Pydantic's own `min_length` also complains of a list whose entries are wrong."""
    if not values:
        raise refuse("needs at least one entry")
    return values


def all_different(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Validates a list of texts that is really a set."""
    seen: set[str] = set()
    for index, text in enumerate(texts):
        if text in seen:
            raise refuse(f"{text!r} is given twice: keep one", index)
        seen.add(text)
    return texts


Whole = Annotated[int, BeforeValidator(_no_bool)]
Real = Annotated[float, BeforeValidator(_no_bool)]
Text = Annotated[str, AfterValidator(_not_blank)]
Slug = Annotated[str, AfterValidator(_slug)]
Texts = Annotated[tuple[Text, ...], AfterValidator(all_different)]


class RecipeSpec(Spec):
    """One entry of a job's `recipes`: which recipe, and what this job wants of it otherwise than its file says.

    Which of the keys a recipe takes, its file tells; `pipeline.recipes` holds an entry to it.
    """

    name: Text
    """A built-in recipe, or the path of a recipe file, which ends in `.yaml` or `.yml`."""
    id: Slug | None = None
    """What its labels are called in the column `recipe`, where one recipe is wanted twice; by default its name."""
    style: Text | None = None
    """Which of its ways to ask."""
    variants: Annotated[tuple[Whole, ...], AfterValidator(all_different)] | None = None
    """Which of its prompts to draw from, counted from 0; by default all. A sample has the same one in every run."""
    hints: Texts | None = None
    """What is added to the prompt where there is something to quote: the text of another recipe on the same sample,
    such as `ocr` (which runs for it, and is written only if the job lists it too); `metadata`, `place` (where it was
    taken) or `original` (the source's own caption)."""
    questions: Texts = ()
    """Questions asked of every sample. Give either these or `questions_from`."""
    questions_from: Text | None = None
    """Column of the source with each sample's own questions: a text or a list of texts."""
    answers_from: Text | None = None
    """Column of the source with the existing answers to `questions_from`; kept beside the new ones."""
    queries: Texts = ()
    """Things to find in every image, e.g. "the dog". Give either these or `queries_from`."""
    queries_from: Text | None = None
    """Column of the source with each image's own queries: a text or a list of texts."""
    conversation_from: Text | None = None
    """Column of the source with a conversation; by default `conversations` or `messages`, whichever there is."""
    original_from: Text | None = None
    """Column of the source with the caption or alt text that it came with."""
    marks_from: Text | None = None
    """Column of the source with what is to be drawn onto the image: a list of `{kind, points, color}`, in pixels."""
    of: Texts = ()
    """Recipes of this job whose labels are looked at."""
    count: Whole | None = Field(default=None, ge=1)
    """How many things are asked for, where a recipe asks for so many."""
    max_boxes: Whole | None = Field(default=None, ge=1)
    """Most boxes of one answer."""
    max_new_tokens: Whole | None = Field(default=None, ge=1)
    """Longest answer, in tokens."""
    temperature: Real | None = Field(default=None, ge=0)
    """Sampling temperature; 0 takes the most likely token every time."""
    top_p: Real | None = Field(default=None, gt=0, le=1)
    """Sample among the most likely tokens that together hold this probability; 1 considers all of them."""
    repetition_penalty: Real | None = Field(default=None, gt=0)
    """Makes tokens that have come already less likely; 1 changes nothing."""
    seed: Whole = 0
    """Seed of the sampling and of the choice among prompts; every sample gets a random stream of its own from it."""

    @model_validator(mode="before")
    @classmethod
    def _has_its_name_where_it_belongs(cls, entry: object) -> object:
        if isinstance(entry, RecipeSpec) or entry is None:
            return entry
        if not isinstance(entry, Mapping):
            raise refuse(f"must be the name of a recipe, or a mapping with a name, got {shown(entry)}")
        key = next(iter(entry), None)
        if len(entry) == 1 and key not in cls.model_fields and (entry[key] is None or isinstance(entry[key], Mapping)):
            raise refuse(f"has its name as a key: write {{name: {key}, ...}}")
        return entry

    @property
    def is_file(self) -> bool:
        return self.name.endswith((".yaml", ".yml"))

    @model_validator(mode="after")
    def _only_one_origin(self) -> "RecipeSpec":
        for texts, column in (("questions", "questions_from"), ("queries", "queries_from")):
            if getattr(self, texts) and getattr(self, column) is not None:
                raise refuse(f"{self.name} takes {texts} or {column}, not both: remove one")
        if self.answers_from is not None and self.questions_from is None:
            raise refuse(
                "only goes with questions_from: name the column that holds the questions of these answers",
                "answers_from",
            )
        return self


COLUMN_KEYS = ("questions_from", "answers_from", "queries_from", "conversation_from", "original_from", "marks_from")


def columns_of(recipe: RecipeSpec) -> dict[str, str]:
    """The columns of the source a recipe reads, by the key that names them."""
    return {key: column for key in COLUMN_KEYS if (column := getattr(recipe, key)) is not None}
