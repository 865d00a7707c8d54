"""A job -> the work it stands for: everything that is looked up once, before a cluster starts, so that bad input fails
in seconds with one line.

Knows no Ray: what it finds is handed to the stages as plain values.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from model import checkpoint as checkpoints
from model.checkpoint_files import digest as checkpoint_digest
from model.checkpoint_files import local_folder
from pipeline.ledger import RunFolder
from pipeline.list_source import open_source
from pipeline.manifest import read_shard, sample_id, write_manifest
from pipeline.recipes import Recipe, make_recipes
from pipeline.source import Source, SourceColumns, SourceRow
from pipeline.storage import canonical_uri, join_uri, open_store
from schemas.job import JobSpec
from schemas.recipe_specs import columns_of
from schemas.tables import ALL_TABLES, SCHEMA_VERSION

RUN_FILE = "run.json"


@dataclass(frozen=True, kw_only=True)
class Work:
    """A resolved job. `shards` name the manifest shards under `folder`, those of earlier runs first."""

    job: JobSpec
    folder: RunFolder
    checkpoint: str
    """The checkpoint's location as in the job, "@" and the first 12 digits of its digest."""
    candidate_resolutions: tuple[tuple[int, int], ...]
    recipes: tuple[Recipe, ...]
    image_column: str | None
    carried_schema: pa.Schema | None
    shards: tuple[str, ...]
    num_images: int
    num_new_images: int
    num_ignored_files: int

    @property
    def recipe_digests(self) -> dict[str, str]:
        return {recipe.name: recipe.digest for recipe in self.recipes}

    @property
    def tables(self) -> list[str]:
        """Label tables of the job's recipes, in the order of `ALL_TABLES`."""
        return [table for table in ALL_TABLES if table in {recipe.table for recipe in self.recipes}]


def resolve(job: JobSpec, *, limit: int | None) -> Work:
    """Checks output, checkpoint and source, and writes the manifest of what is new in the source.

    Args:
        limit: label at most this many images of the source, those of earlier runs on this output included.

    Raises:
        ValueError: one line for whatever is missing, unreadable, forbidden, empty, or does not go with what an earlier
            run has left at the output.
    """
    output_uri = canonical_uri(job.output)
    folder = RunFolder(output_uri)
    open_store(output_uri).check_writable(output_uri)
    earlier = folder.get_json(RUN_FILE)
    if earlier is None:
        _refuse_foreign_files(output_uri)
    config = checkpoints.check(job.checkpoint)
    digest = checkpoint_digest(local_folder(job.checkpoint))
    recipes = make_recipes(job.recipes, checkpoint_digest=digest)
    identity = _identity(job, digest, recipes)
    if earlier is not None:
        _refuse_changes(earlier["identity"], identity, output_uri)
    source = open_source(job.source, _columns(job))
    manifest = _extend_manifest(source, folder, earlier, limit)
    folder.put_json(RUN_FILE, {"identity": identity, **manifest})
    open_store(folder.uri).put(join_uri(folder.uri, "job.yaml"), job.to_yaml().encode())
    return Work(
        job=job,
        folder=folder,
        checkpoint=f"{job.checkpoint}@{digest[:12]}",
        candidate_resolutions=config.candidate_resolutions,
        recipes=recipes,
        image_column=source.image_column,
        carried_schema=source.carried_schema,
        shards=tuple(manifest["shards"]),
        num_images=manifest["num_images"],
        num_new_images=manifest["num_images"] - (earlier["num_images"] if earlier else 0),
        num_ignored_files=manifest["num_ignored_files"],
    )


def _columns(job: JobSpec) -> SourceColumns:
    """The columns that the job's recipes read, whichever recipe names them."""
    named = {key: column for recipe in job.recipes for key, column in columns_of(recipe).items()}
    return SourceColumns(
        questions=named.get("questions_from"),
        original_answers=named.get("answers_from"),
        queries=named.get("queries_from"),
    )


def _identity(job: JobSpec, digest: str, recipes: Sequence[Recipe]) -> dict[str, Any]:
    """What an output was made from; a later run may only add recipes to it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "source": json.loads(job.source.model_dump_json()),
        "checkpoint digest": digest,
        "recipes": {recipe.name: recipe.digest for recipe in recipes},
    }


def _refuse_changes(earlier: Mapping[str, Any], now: Mapping[str, Any], output_uri: str) -> None:
    changed = [key for key in ("schema_version", "source", "checkpoint digest") if earlier[key] != now[key]]
    for name, digest in earlier["recipes"].items():
        if name not in now["recipes"]:
            changed.append(f"recipe {name} (removed)")
        elif now["recipes"][name] != digest:
            changed.append(f"recipe {name}")
    if changed:
        raise ValueError(
            f"output {output_uri} was made by an earlier run with another {', '.join(changed)}: "
            "choose another output, or undo the change (adding recipes or images is fine)"
        )


def _refuse_foreign_files(output_uri: str) -> None:
    """Finalizing replaces the tables' folders, so nothing of the user's may lie in them."""
    for table in ALL_TABLES:
        found = next(iter(open_store(output_uri).list_or_empty(join_uri(output_uri, table))), None)
        if found is not None:
            raise ValueError(
                f"output {output_uri} already holds {found.uri}, which no run of labelmill wrote: choose another output"
            )


def _extend_manifest(
    source: Source, folder: RunFolder, earlier: Mapping[str, Any] | None, limit: int | None
) -> dict[str, Any]:
    """Adds shards for what no earlier run has listed."""
    shards: list[str] = list(earlier["shards"]) if earlier else []
    num_images: int = earlier["num_images"] if earlier else 0
    known = {
        sample
        for shard in shards
        for batch in read_shard(folder.shard_uri(shard))
        for sample in batch.column("sample_id").to_pylist()
    }
    remaining = None if limit is None else max(0, limit - num_images)
    added = write_manifest(_NewRows(source, known), folder.manifest_uri, limit=remaining, first_shard=len(shards))
    return {
        "shards": [*shards, *added.shards],
        "num_images": num_images + added.num_images,
        "num_ignored_files": added.num_ignored,
    }


class _NewRows:
    """A source without the rows that an earlier manifest holds."""

    def __init__(self, source: Source, known_sample_ids: set[str]) -> None:
        self._source, self._known = source, known_sample_ids

    @property
    def carried_schema(self) -> pa.Schema | None:
        return self._source.carried_schema

    @property
    def image_column(self) -> str | None:
        return self._source.image_column

    @property
    def num_ignored(self) -> int:
        return self._source.num_ignored

    def rows(self) -> Iterator[SourceRow]:
        for row in self._source.rows():
            if sample_id(row.image_uri, row.version, row.member) not in self._known:
                yield row
