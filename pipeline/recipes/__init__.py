"""The recipes of a job file -> recipes that run, in the order in which they need each other.

A recipe is a YAML file (the built-in ones lie in this folder, a user's own goes by its path); `schemas.recipe_file`
says what stands in it.
"""

from collections.abc import Mapping, Sequence

from pipeline.recipes.files import LoadedRecipe, built_in_names, load_recipe
from pipeline.recipes.fit import problems_of_entry
from pipeline.recipes.recipe import Recipe, digest_of, needed_names
from schemas.job_problems import JobError, JobProblem
from schemas.recipe_specs import RecipeSpec

__all__ = [
    "LoadedRecipe",
    "Recipe",
    "built_in_names",
    "check_recipes",
    "load_recipe",
    "make_recipes",
    "names_with_marks",
    "problems_of_recipes",
]

_Entry = tuple[RecipeSpec, LoadedRecipe]


def check_recipes(specs: Sequence[RecipeSpec]) -> dict[str, _Entry]:
    """The entries of a job by their ids, each with its recipe.

    Raises:
        JobError: with one problem for each entry that names no recipe, or does not go with the one that it names.
    """
    if problems := problems_of_recipes(dict(enumerate(specs))):
        raise JobError(problems)
    loaded = [(spec, load_recipe(spec.name)) for spec in specs]
    return {spec.id or recipe.file.name: (spec, recipe) for spec, recipe in loaded}


def problems_of_recipes(specs: Mapping[int, RecipeSpec]) -> list[JobProblem]:
    """Args:
    specs: the entries of a job by their places; those that are wrong in themselves may be left out.
    """
    problems: list[JobProblem] = []
    loaded: dict[int, LoadedRecipe] = {}
    for place, spec in specs.items():
        try:
            loaded[place] = load_recipe(spec.name)
        except JobError as error:
            problems += [
                JobProblem(path=".".join(filter(None, (f"recipes.{place}", one.path))), message=one.message)
                for one in error.problems
            ]
    ids = {place: specs[place].id or recipe.file.name for place, recipe in loaded.items()}
    for place, recipe in loaded.items():
        problems += problems_of_entry(place, specs[place], recipe, list(ids.values()))
        known = {*ids.values(), *(other.file.name for other in loaded.values())}
        problems += [
            JobProblem(path=f"recipes.{place}.hints", message=message)
            for hint in needed_names(recipe, specs[place])
            if hint not in known and hint not in specs[place].of and (message := _why_not_by_itself(hint))
        ]
        if next(first for first, id_ in ids.items() if id_ == ids[place]) != place:
            message = f"the recipe {ids[place]} is given twice: keep one, or give one of them another id"
            problems.append(JobProblem(path=f"recipes.{place}", message=message))
    return problems


def _why_not_by_itself(hint: str) -> str | None:
    """Why a recipe that is quoted, and not listed, cannot run for those that quote it."""
    if hint not in built_in_names():
        return f"there is no recipe {hint!r} to quote: add it to recipes, with its file"
    problems = problems_of_entry(0, RecipeSpec(name=hint), load_recipe(hint), [])
    return next((f"{problem.message}: add {hint} to recipes with what it needs" for problem in problems), None)


def make_recipes(specs: Sequence[RecipeSpec], *, checkpoint_digest: str) -> tuple[Recipe, ...]:
    """One recipe per spec, and one (which is not written) for each that another quotes and the job does not list; a
    recipe comes after those whose labels it reads.

    Raises:
        JobError: as `check_recipes`; or recipes look at each other's labels in a circle.
    """
    entries = check_recipes(specs)
    written = set(entries)
    needs: dict[str, dict[str, str]] = {}
    while missing := [id_ for id_ in entries if id_ not in needs]:
        for id_ in missing:
            needs[id_] = {name: _needed_id(name, entries) for name in needed_names(entries[id_][1], entries[id_][0])}
            for needed in needs[id_].values():
                if needed not in entries:
                    entries[needed] = (RecipeSpec(name=needed), load_recipe(needed))
    made: dict[str, Recipe] = {}
    while waiting := [id_ for id_ in entries if id_ not in made]:
        ready = [id_ for id_ in waiting if set(needs[id_].values()) <= made.keys()]
        if not ready:
            message = f"the recipes {', '.join(waiting)} need each other's labels in a circle"
            raise JobError([JobProblem(path="recipes", message=message)])
        for id_ in ready:
            spec, loaded = entries[id_]
            digests = {name: made[needed].digest for name, needed in needs[id_].items()}
            made[id_] = Recipe(
                name=id_,
                spec=spec,
                loaded=loaded,
                needs=needs[id_],
                digest=digest_of(loaded, spec, name=id_, checkpoint=checkpoint_digest, needs=digests),
                is_written=id_ in written,
            )
    return tuple(made.values())


def names_with_marks(recipes: Sequence[Recipe]) -> tuple[str, ...]:
    """The recipes that cannot run before a sample's marks are drawn: those that look at them, and those that read the
    labels of such a recipe.

    Args:
        recipes: in the order of `make_recipes`.
    """
    found: list[str] = []
    for recipe in recipes:
        if "marks" in recipe.loaded.file.repeats_for() or set(recipe.needs.values()) & {*found}:
            found.append(recipe.name)
    return tuple(found)


def _needed_id(name: str, entries: dict[str, _Entry]) -> str:
    """The job's recipe of that id, or else its first one of that name, or else the built-in one."""
    if name in entries:
        return name
    return next((id_ for id_, (_, loaded) in entries.items() if loaded.file.name == name), name)
