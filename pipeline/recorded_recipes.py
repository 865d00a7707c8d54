"""The recipes of a run <-> `<output>/_run/recipes/`: the files as they stood when their labels were made.

Whoever reads an output need not have the user's own files, nor the built-in ones of that version.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pipeline.ledger import RunFolder
from pipeline.recipes import Recipe
from pipeline.recipes.files import recipe_of
from pipeline.storage import open_store
from schemas.job import JobSpec
from schemas.recipe_file import RecipeFile
from schemas.recipe_specs import RecipeSpec


@dataclass(frozen=True, kw_only=True)
class RecordedRecipe:
    """`spec`: the entry of the job."""

    id: str
    spec: RecipeSpec
    file: RecipeFile


def put_recipes(folder: RunFolder, recipes: Sequence[Recipe]) -> None:
    store = open_store(folder.uri)
    for recipe in recipes:
        store.put(_uri(folder, recipe.name, "yaml"), recipe.loaded.text.encode())
        if recipe.loaded.function_source is not None:
            store.put(_uri(folder, recipe.name, "py"), recipe.loaded.function_source.encode())


def read_recipes(folder: RunFolder, job: JobSpec) -> Mapping[str, RecordedRecipe]:
    """By id, in the order of the job.

    Raises:
        StorageError: one of the files cannot be read.
        JobError: one of them is no recipe.
    """
    store = open_store(folder.uri)
    found = {}
    for spec in job.recipes:
        id_ = spec.id or spec.name
        found[id_] = RecordedRecipe(id=id_, spec=spec, file=recipe_of(store.get(_uri(folder, id_, "yaml")).decode()))
    return found


def _uri(folder: RunFolder, id_: str, suffix: str) -> str:
    return folder.recipe_uri(f"{id_}.{suffix}")
