"""The entries of a job's `recipes` -> every mistake in them that the recipes' own files show.

Which keys an entry takes follows from what its recipe asks: one that asks the sample's questions takes `questions`.
"""

from collections.abc import Iterator, Sequence

from pipeline.recipes.files import LoadedRecipe
from pipeline.recipes.prompts import style_of
from schemas.job_problems import JobProblem, did_you_mean
from schemas.recipe_file import RecipeFile, placeholders
from schemas.recipe_specs import RecipeSpec

_ALWAYS = {"name", "id", "variants", "max_new_tokens", "temperature", "top_p", "repetition_penalty", "seed"}
_FOR_EACH = {
    "questions": {"questions", "questions_from", "answers_from"},
    "queries": {"queries", "queries_from"},
    "turns": {"conversation_from"},
    "marks": {"marks_from", "questions"},
    "labels": {"of"},
}


def problems_of_entry(place: int, spec: RecipeSpec, loaded: LoadedRecipe, ids: Sequence[str]) -> Iterator[JobProblem]:
    """Args:
    place: of the entry in the job.
    ids: of all its recipes.
    """
    for key, message in _problems(spec, loaded.file, ids):
        yield JobProblem(path=".".join(filter(None, ("recipes", str(place), key))), message=message)


def keys_of(file: RecipeFile) -> set[str]:
    """The keys that an entry with this recipe takes."""
    keys = _ALWAYS | {key for what in file.repeats_for() for key in _FOR_EACH[what]}
    if file.styles:
        keys |= {"style"}
    if file.hints:
        keys |= {"hints"}
    if "original" in file.hints:
        keys |= {"original_from"}
    if file.count is not None:
        keys |= {"count"}
    if any(step.answer == "boxes" for step in file.steps):
        keys |= {"max_boxes"}
    return keys


def _problems(spec: RecipeSpec, file: RecipeFile, ids: Sequence[str]) -> Iterator[tuple[str, str]]:
    known = keys_of(file)
    for key in sorted(spec.model_fields_set - known):
        if getattr(spec, key):
            yield (
                key,
                f"{file.name} takes no {key}{did_you_mean(key, known) or ';'} it takes: {', '.join(sorted(known))}",
            )
    if spec.style is not None and file.styles and spec.style not in file.styles:
        yield "style", f"{file.name} has no style {spec.style!r}; it has: {', '.join(file.styles)}"
    for hint in spec.hints or ():
        if file.hints and hint not in file.hints:
            yield "hints", f"{file.name} takes no hint {hint!r}; it takes: {', '.join(file.hints)}"
    for recipe in spec.of:
        if "of" in known and recipe not in ids:
            yield "of", f"the job has no recipe {recipe!r}: add it to recipes, or name one of: {', '.join(ids)}"
    yield from _missing(spec, file)
    num_variants = len(style_of(file.last, spec)[1].prompts)
    for variant in spec.variants or ():
        if not 0 <= variant < num_variants:
            yield "variants", f"there are {num_variants} prompts, counted from 0, and {variant} is none of them"


def _missing(spec: RecipeSpec, file: RecipeFile) -> Iterator[tuple[str, str]]:
    repeats = file.repeats_for()
    for what, column in (("questions", "questions_from"), ("queries", "queries_from")):
        if what in repeats and not getattr(spec, what) and getattr(spec, column) is None:
            yield "", f"{file.name} needs {what} (a list, for every image) or {column} (a column of the source)"
    if "marks" in repeats and spec.marks_from is None:
        yield "", f"{file.name} needs marks_from (a column of the source with what is to be drawn)"
    if "marks" in repeats:
        name, style = style_of(file.last, spec)
        asks = [prompt for prompt in style.prompts if "question" in placeholders(prompt)]
        if bool(asks) != bool(spec.questions):
            must = "asks questions: give them with questions" if asks else "asks nothing else: choose a style that asks"
            yield "questions", f"the style {name} of {file.name} {must}"
    if "labels" in repeats and not spec.of:
        yield "of", f"{file.name} needs the recipes whose labels it shall look at, e.g. of: [caption]"
