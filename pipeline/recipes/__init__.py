"""The recipes of a job file -> recipes that run: one file per task, in the order in which they need each other."""

from collections.abc import Sequence

from pipeline.recipes.caption import Caption
from pipeline.recipes.grounding import Grounding
from pipeline.recipes.ocr import Ocr
from pipeline.recipes.qa import Qa
from pipeline.recipes.recipe import Recipe
from schemas.recipe_specs import RecipeSpec

__all__ = ["BUILT_IN", "Recipe", "make_recipes"]

BUILT_IN: dict[str, type[Recipe]] = {recipe.name: recipe for recipe in (Caption, Grounding, Ocr, Qa)}


def make_recipes(specs: Sequence[RecipeSpec], *, checkpoint_digest: str) -> tuple[Recipe, ...]:
    """One recipe per spec; a recipe comes after those whose labels it reads."""
    waiting = list(specs)
    made: dict[str, Recipe] = {}
    while waiting:
        ready = [spec for spec in waiting if set(BUILT_IN[spec.name].needs(spec)) <= made.keys()]
        assert ready, f"recipes need each other in a circle: {[spec.name for spec in waiting]}"
        for spec in ready:
            recipe_class = BUILT_IN[spec.name]
            needed = [made[name].digest for name in recipe_class.needs(spec)]
            made[spec.name] = recipe_class(spec, checkpoint_digest=checkpoint_digest, needed_digests=needed)
        waiting = [spec for spec in waiting if spec.name not in made]
    return tuple(made.values())
