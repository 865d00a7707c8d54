"""A recipe of a job -> what a reader of its labels should know of it, as plain values for JSON and the dataset card."""

from typing import Any

from pipeline.recipes.prompts import hints_of, style_of
from pipeline.recipes.recipe import Recipe
from schemas.recipe_file import StepFile
from schemas.recipe_specs import RecipeSpec

_DECODING = ("max_new_tokens", "temperature", "top_p", "repetition_penalty")


def describe(recipe: Recipe) -> dict[str, Any]:
    """Prompts, parameters and gates as they were used: the style that the job chose, its hints, its own settings."""
    file, spec = recipe.loaded.file, recipe.spec
    return {
        "recipe": file.name,
        "origin": recipe.loaded.origin,
        "about": file.about,
        "table": str(file.table),
        "steps": [_step(step, spec) for step in file.steps],
    }


def _step(step: StepFile, spec: RecipeSpec) -> dict[str, Any]:
    style_name, style = style_of(step, spec)
    chosen = [prompt for index, prompt in enumerate(style.prompts) if index in (spec.variants or (index,))]
    own = {name: getattr(step.generation, name) for name in _DECODING}
    of_the_job = {name: value for name in _DECODING if (value := getattr(spec, name)) is not None}
    described = {
        "step": step.name,
        "each": step.each,
        "style": style_name if step.styles else None,
        "prompts": chosen or list(style.prompts),
        "hints": {hint: step.hints[hint] for hint in hints_of(step, spec)},
        "parameters": {**own, **of_the_job, "seed": spec.seed},
        "gates": step.gates.model_dump(mode="json", exclude_none=True),
        "retries": [retry.model_dump(mode="json", exclude_defaults=True) for retry in step.retries],
    }
    return {key: value for key, value in described.items() if value}
