"""A job file and its overrides -> a job whose recipes fit it, before anything heavy is imported."""

import contextlib
from collections.abc import Iterator, Sequence
from pathlib import Path

from pipeline.recipes import problems_of_recipes
from schemas.job import JobSpec, load_job


def read_job(path_or_text: str | Path, overrides: Sequence[str] = ()) -> JobSpec:
    """As `load_job`, with the recipes held to their files.

    Raises:
        JobError: with one problem for each mistake.
    """
    return load_job(path_or_text, overrides, check_recipes=problems_of_recipes)


@contextlib.contextmanager
def in_folder_of(path: Path) -> Iterator[str]:
    """The job file's folder as the working folder, as it is for a run elsewhere; gives the file's name in it."""
    if not path.parent.is_dir():
        read_job(path)  # which says so
    with contextlib.chdir(path.parent):
        yield path.name
