"""A job file and its overrides -> a job whose recipes fit it, before anything heavy is imported.

What a job file names relatively starts from its own folder, whichever the working folder is; overrides are arguments of
the command, and start from the working folder.
"""

import contextlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.recipes import problems_of_recipes
from schemas.job import JobSpec, load_job
from schemas.job_places import moved_override


def opened_job(path: Path, overrides: Sequence[str] = ()) -> JobSpec:
    """The job of a file, with its places spelled from the working folder.

    Raises:
        JobError: with one problem for each mistake.
    """
    return load_job(path, overrides, folder=path.parent, check_recipes=problems_of_recipes)


def read_job(path_or_text: str | Path, overrides: Sequence[str] = ()) -> JobSpec:
    """A job file's text, or a file whose folder is the working folder.

    Raises:
        JobError: with one problem for each mistake.
    """
    return load_job(path_or_text, overrides, check_recipes=problems_of_recipes)


def made_job(document: Mapping[str, Any], overrides: Sequence[str] = ()) -> JobSpec:
    """A command's own arguments as a job, so that they are checked and overridden as in a job file.

    Raises:
        JobError: as `read_job`.
    """
    return read_job("\n" + json.dumps(document), overrides)  # a text of one line would be taken for a file


@dataclass(frozen=True, kw_only=True)
class JobInItsFolder:
    """`file` and `overrides`: for the command where the job's folder is the working folder."""

    job: JobSpec
    file: str
    overrides: Sequence[str]


@contextlib.contextmanager
def opened_in_its_folder(path: Path, overrides: Sequence[str] = ()) -> Iterator[JobInItsFolder]:
    """The same for a run elsewhere, which has the job's folder as its working folder; here it is that meanwhile.

    Raises:
        JobError: as `opened_job`.
    """
    if not path.parent.is_dir():
        opened_job(path)  # which says so
    working_folder = Path.cwd()
    with contextlib.chdir(path.parent):
        if not working_folder.samefile(Path()):
            overrides = [
                moved_override(override, lambda place: os.path.relpath(working_folder / place))
                for override in overrides
            ]
        file = Path(path.name)
        yield JobInItsFolder(job=opened_job(file, overrides), file=path.name, overrides=overrides)
