"""A recipe's name, or the path of a user's own file -> the checked recipe and all that its labels depend on.

A file's function is carried as source text: workers on other machines have no such file.
"""

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from schemas.job_problems import JobError, JobProblem, did_you_mean, problems_of
from schemas.job_yaml import parse_mapping, read_text
from schemas.recipe_file import RecipeFile

FOLDER = Path(__file__).parent

UserFunction = Callable[[str, Mapping[str, Any]], Mapping[str, Any]]


@dataclass(frozen=True, kw_only=True)
class LoadedRecipe:
    """`origin`: "built in", or the path as the user gave it. `text`: the file as it stands."""

    origin: str
    text: str
    file: RecipeFile
    function_source: str | None = None
    """Of the Python file that `parse` names."""

    def user_function(self) -> UserFunction | None:
        """What `parse` names in a file of the user's; None where the recipe has none."""
        if self.function_source is None:
            return None
        return _compiled(self.function_source, str(self.file.parse))


def built_in_names() -> list[str]:
    return sorted(path.stem for path in FOLDER.glob("*.yaml"))


def load_recipe(name: str) -> LoadedRecipe:
    """A built-in recipe by its name, or one by the path of its file, relative to the working folder.

    Raises:
        JobError: there is none, or it is not right; one problem for each mistake, with the file's name before it.
    """
    if name.endswith((".yaml", ".yml")):
        return _load_file(Path(name), origin=name)
    if name not in built_in_names():
        known = f"known recipes: {', '.join(built_in_names())}, or the path of a file of your own, ending in .yaml"
        message = f"unknown recipe {name!r}{did_you_mean(name, built_in_names()) or ';'} {known}"
        raise JobError([JobProblem(path="", message=message)])
    return _load_built_in(name)


@functools.cache
def _load_built_in(name: str) -> LoadedRecipe:
    return _load_file(FOLDER / f"{name}.yaml", origin="built in")


def _load_file(path: Path, *, origin: str) -> LoadedRecipe:
    text = read_text(path, what="recipe file")
    try:
        file = recipe_of(text)
        loaded = LoadedRecipe(origin=origin, text=text, file=file, function_source=_function_source(path, file))
        loaded.user_function()
    except JobError as error:
        raise JobError([_in_file(path, problem) for problem in error.problems]) from None
    return loaded


def recipe_of(text: str) -> RecipeFile:
    """The recipe that a file's text holds.

    Raises:
        JobError: with one problem for each mistake.
    """
    document, problems = parse_mapping(text, what="recipe file")
    try:
        file = RecipeFile.model_validate(document)
    except ValidationError as error:
        raise JobError([*problems, *problems_of(error, RecipeFile)]) from None
    if problems:
        raise JobError(problems)
    return file


def _in_file(path: Path, problem: JobProblem) -> JobProblem:
    return JobProblem(path=problem.path, message=f"{problem.message} (in {path})")


def _function_source(path: Path, file: RecipeFile) -> str | None:
    if file.parse is None:
        return None
    name, _, function = file.parse.partition(":")
    if not name.endswith(".py") or not function.isidentifier():
        raise _bad_parse(f"must have the form FILE.py:FUNCTION, got {file.parse!r}")
    return read_text(path.parent / name, what="Python file")


def _bad_parse(message: str) -> JobError:
    return JobError([JobProblem(path="parse", message=message)])


@functools.lru_cache(maxsize=64)
def _compiled(source: str, parse: str) -> UserFunction:
    name, _, function = parse.partition(":")
    namespace: dict[str, Any] = {"__name__": f"labelmill_recipe_{Path(name).stem}"}
    try:
        exec(compile(source, name, "exec"), namespace)  # the user's own file, which the user has named
    except Exception as error:
        raise _bad_parse(f"{name} cannot be run: {type(error).__name__}: {error}") from error
    found = namespace.get(function)
    if not callable(found):
        raise _bad_parse(f"{name} has no function {function}")
    return found
