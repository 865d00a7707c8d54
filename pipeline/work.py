"""A job -> the work it stands for: everything that is looked up once, before a cluster starts, so that bad input fails
in seconds with one line.

Knows no Ray: what it finds is handed to the stages as plain values.
"""

import itertools
import json
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from model import checkpoint as checkpoints
from model.checkpoint_files import digest as checkpoint_digest
from model.checkpoint_files import local_folder
from model.prompt import Processor
from pipeline.ledger import CARD_NAME, RunFolder
from pipeline.list_source import open_source
from pipeline.manifest import read_shard, sample_id, write_manifest
from pipeline.patience import FIRST_CONTACT_S, Patience
from pipeline.recipes import Recipe, make_recipes
from pipeline.source import Source, SourceColumns, SourceRow
from pipeline.storage import canonical_uri, join_uri, open_store
from schemas.job import JobSpec
from schemas.recipe_specs import columns_of
from schemas.tables import ALL_TABLES, SCHEMA_VERSION, carried_name

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
        limit: label at most this many images of the source, those of earlier runs on this output included; those that
            an earlier run has listed are finished even if they are more.

    Raises:
        ValueError: one line for whatever is missing, unreadable, forbidden, empty, or does not go with what an earlier
            run has left at the output.
    """
    output_uri = canonical_uri(job.output)
    folder = RunFolder(output_uri)
    patience = Patience.from_environment(at_most_s=FIRST_CONTACT_S)
    open_store(output_uri, patience=patience).check_writable(output_uri)
    earlier = folder.get_json(RUN_FILE)
    if earlier is None:
        _refuse_foreign_files(output_uri)
    checkpoint_folder = local_folder(job.checkpoint)  # once: on S3 each call lists the prefix
    checkpoints.check(checkpoint_folder)
    processor = Processor.from_checkpoint(checkpoint_folder)
    digest = checkpoint_digest(checkpoint_folder)
    recipes = make_recipes(job.recipes, checkpoint_digest=digest)
    columns = _columns(job)
    source = open_source(job.source, columns, without=folder.written_uris)
    _refuse_colliding_columns(source.carried_schema, job)
    identity = _identity(job, digest, recipes, columns, source.carried_schema)
    if earlier is not None:
        _refuse_changes(earlier["identity"], identity, output_uri)
    manifest = _extend_manifest(source, folder, earlier, limit)
    folder.put_json(RUN_FILE, {"identity": identity, **manifest})
    open_store(folder.uri).put(join_uri(folder.uri, "job.yaml"), job.to_yaml().encode())
    return Work(
        job=job,
        folder=folder,
        checkpoint=f"{job.checkpoint}@{digest[:12]}",
        candidate_resolutions=processor.config.candidate_resolutions,
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


def _identity(
    job: JobSpec, digest: str, recipes: Sequence[Recipe], columns: SourceColumns, carried_schema: pa.Schema | None
) -> dict[str, Any]:
    """What an output was made from; a later run may only add recipes to it."""
    return {
        "schema_version": SCHEMA_VERSION,
        # The same relative path names something else in another folder.
        "source": json.loads(job.source.model_dump_json()) | {"uri": canonical_uri(job.source.uri)},
        "columns carried along": {field.name: str(field.type) for field in carried_schema or ()},
        # The manifest holds what these columns say: images listed without them would be asked nothing.
        "columns read": asdict(columns),
        "checkpoint digest": digest,
        "recipes": {recipe.name: recipe.digest for recipe in recipes},
    }


def _refuse_changes(earlier: Mapping[str, Any], now: Mapping[str, Any], output_uri: str) -> None:
    changed = [
        key
        for key in ("schema_version", "source", "columns carried along", "checkpoint digest")
        if earlier.get(key) != now[key]
    ]
    for use, column in now["columns read"].items():
        if (before := earlier.get("columns read", {}).get(use)) != column:
            changed.append(f"column of {use.replace('_', ' ')} ({before or 'none'} then, {column or 'none'} now)")
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
    """What a run writes replaces what is there, so nothing of the user's may lie in its places."""
    store = open_store(output_uri)
    card_uri = join_uri(output_uri, CARD_NAME)
    found = [card_uri] if store.exists(card_uri) else []
    for table in ALL_TABLES:
        found += [info.uri for info in itertools.islice(store.list_or_empty(join_uri(output_uri, table)), 1)]
    if found:
        raise ValueError(
            f"output {output_uri} already holds {found[0]}, which no run of labelmill wrote: choose another output"
        )


def _refuse_colliding_columns(carried_schema: pa.Schema | None, job: JobSpec) -> None:
    names = Counter(carried_name(field.name) for field in carried_schema or ())
    for name in (name for name, count in names.items() if count > 1):
        raise ValueError(
            f"{job.source.uri}: columns {name.removeprefix('source_')!r} and {name!r} would both be carried along as "
            f"{name!r}, because the first is a name of ours: rename one, or choose columns with source.carry"
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
