"""The job that made an output, as it is recorded there, and back.

Locations in it mean the same in every folder.
"""

import os
from collections.abc import Sequence

from pipeline.ledger import RunFolder
from pipeline.output_names import JOB_FILE, RUN_NAME
from pipeline.patience import FIRST_CONTACT_S, Patience
from pipeline.recipes import Recipe
from pipeline.storage import canonical_uri, join_uri, open_store
from schemas.job import JobSpec, OutputSpec, load_job


def job_of(output: str, overrides: Sequence[str] = ()) -> JobSpec:
    """The job that made an output, for that output wherever it lies now.

    Raises:
        ValueError: there is none, or an override does not fit it.
    """
    folder = RunFolder(canonical_uri(output))
    patience = Patience.from_environment(at_most_s=FIRST_CONTACT_S)
    store, uri = open_store(folder.uri, patience=patience), join_uri(folder.uri, JOB_FILE)
    if not store.exists(uri):
        raise ValueError(f"{output} holds no run of labelmill (no {RUN_NAME}/{JOB_FILE}): give the output of a job")
    job = load_job(store.get(uri).decode(), overrides)
    return job.model_copy(update={"output": _at(job, folder)})


def put_job(folder: RunFolder, job: JobSpec, recipes: Sequence[Recipe]) -> None:
    """With locations that mean the same in every folder, and each recipe under its id."""
    roots = job.source.image_roots
    places = {**places_of(job), "image_roots": roots and tuple(map(canonical_uri, roots))}
    source = job.source.model_copy(update=places)
    checkpoint = os.path.abspath(job.checkpoint) if os.path.isdir(job.checkpoint) else job.checkpoint
    ids = {recipe.spec: recipe.name for recipe in recipes if recipe.is_written}
    entries = tuple(
        spec.model_copy(update={"id": ids[spec], "name": os.path.abspath(spec.name) if spec.is_file else spec.name})
        for spec in job.recipes
    )
    update = {"source": source, "output": _at(job, folder), "checkpoint": checkpoint, "recipes": entries}
    job = job.model_copy(update=update)
    open_store(folder.uri).put(join_uri(folder.uri, JOB_FILE), job.to_yaml().encode())


def _at(job: JobSpec, folder: RunFolder) -> OutputSpec:
    return job.output.model_copy(update={"uri": folder.output_uri})


def places_of(job: JobSpec) -> dict[str, str]:
    """Keys of the source that say where it lies, spelled so that they mean the same in every folder."""
    given = {"uri": job.source.uri, "image_root": job.source.image_root}
    return {key: canonical_uri(uri) for key, uri in given.items() if uri is not None}
