"""The `recipes` of a job file -> one frozen spec each: what is asked of the model, and how it decodes.

Does not know the prompts themselves, nor how an answer is parsed and judged.
"""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from schemas.job_problems import refuse


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
Texts = Annotated[tuple[Text, ...], AfterValidator(all_different)]


class Decoding(Spec):
    """How a recipe's answers are decoded; part of every recipe."""

    name: str
    max_new_tokens: Whole
    temperature: Real = Field(default=0.0, ge=0)
    """Sampling temperature; 0 takes the most likely token every time."""
    top_p: Real = Field(default=1.0, gt=0, le=1)
    """Sample among the most likely tokens that together hold this probability; 1 considers all of them."""
    seed: Whole = 0
    """Seed of the sampling; every image gets a random stream of its own from it. Unused at temperature 0."""


class CaptionSpec(Decoding):
    """A description of the whole image, into the table `captions`."""

    name: Literal["caption"] = "caption"
    """Selects this recipe."""
    max_new_tokens: Whole = Field(default=256, ge=1)
    """Longest caption, in tokens."""
    hints: tuple[Literal["ocr"], ...] = ()
    """Recipes whose answer on the same image goes into the prompt; `ocr` must then be a recipe of the job."""


class OcrSpec(Decoding):
    """All text in the image, into the table `ocr`."""

    name: Literal["ocr"] = "ocr"
    """Selects this recipe."""
    max_new_tokens: Whole = Field(default=1024, ge=1)
    """Longest transcription, in tokens."""


class QaSpec(Decoding):
    """Answers to questions about the image, into the table `qa`, one row for each question."""

    name: Literal["qa"] = "qa"
    """Selects this recipe."""
    max_new_tokens: Whole = Field(default=256, ge=1)
    """Longest answer, in tokens."""
    questions: Texts = ()
    """Questions asked of every image. Give either these or `questions_from`."""
    questions_from: Text | None = None
    """Column of the source with each image's own questions: a text or a list of texts."""
    answers_from: Text | None = None
    """Column of the source with the existing answers to `questions_from`; kept beside the new ones."""

    @model_validator(mode="after")
    def _one_source_of_questions(self) -> "QaSpec":
        _exactly_one(self, "questions", "questions_from")
        if self.answers_from is not None and self.questions_from is None:
            raise refuse(
                "only goes with questions_from: name the column that holds the questions of these answers",
                "answers_from",
            )
        return self


class GroundingSpec(Decoding):
    """Boxes around what each query names, into the table `grounding`, one row for each query."""

    name: Literal["grounding"] = "grounding"
    """Selects this recipe."""
    max_new_tokens: Whole = Field(default=256, ge=32)
    """Longest list of boxes, in tokens, the query that it opens with included; a box takes up to 20."""
    max_boxes: Whole = Field(default=16, ge=1)
    """Most boxes for one query."""
    queries: Texts = ()
    """Things to find in every image, e.g. "the dog". Give either these or `queries_from`."""
    queries_from: Text | None = None
    """Column of the source with each image's own queries: a text or a list of texts."""

    @model_validator(mode="after")
    def _one_source_of_queries(self) -> "GroundingSpec":
        _exactly_one(self, "queries", "queries_from")
        return self


RecipeSpec = Annotated[CaptionSpec | OcrSpec | QaSpec | GroundingSpec, Field(discriminator="name")]


def columns_of(recipe: RecipeSpec) -> dict[str, str]:
    """The columns of the source a recipe reads, by the key that names them."""
    keys = ("questions_from", "answers_from", "queries_from")
    return {key: column for key in keys if (column := getattr(recipe, key, None)) is not None}


def _exactly_one(recipe: Decoding, texts: str, column: str) -> None:
    given = bool(getattr(recipe, texts)), getattr(recipe, column) is not None
    if given == (False, False):
        raise refuse(f"{recipe.name} needs {texts} (a list, for every image) or {column} (a column of the source)")
    if given == (True, True):
        raise refuse(f"{recipe.name} takes {texts} or {column}, not both: remove one")
