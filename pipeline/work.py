"""A job -> the work it stands for: everything that is looked up once, before a cluster starts, so that bad input fails
in seconds with one line.

Knows no Ray: what it finds is handed to the stages as plain values.
"""

import itertools
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa

from model.checkpoint_files import digest as checkpoint_digest
from model.checkpoint_outline import outlined
from model.prompt import Processor
from pipeline.absent import ShardAbsences, put_absent
from pipeline.checkpoint_check import check_checkpoint
from pipeline.ledger import RunFolder
from pipeline.list_source import open_source
from pipeline.manifest import write_manifest
from pipeline.new_rows import NewRows
from pipeline.output_names import CARD_NAME, JOB_FILE, LATEST_NAME, RUN_FILE, RUN_NAME, VERSIONS_NAME
from pipeline.patience import FIRST_CONTACT_S, Patience
from pipeline.pending import TRANSIENT_KINDS, Wanted
from pipeline.recipes import Recipe, check_recipes, make_recipes
from pipeline.recipes.recipe import needed_facts
from pipeline.recorded_recipes import put_recipes
from pipeline.sink import SinkConfig
from pipeline.source import CONVERSATION_AUTO, Source, SourceColumns
from pipeline.storage import canonical_uri, join_uri, open_store
from pipeline.uri_policy import UriPolicy
from schemas.job import JobSpec, OutputSpec, load_job
from schemas.recipe_specs import columns_of
from schemas.tables import ALL_TABLES, SCHEMA_VERSION, carried_name

_OBJECTS = "checkpoint objects"
"""Key of an identity, if the checkpoint lies in a store. See `_are_rewritten`."""

_LATER_SOURCE_KEYS = ("pdf_dpi",)


@dataclass(frozen=True, kw_only=True)
class Work:
    """A resolved job. `shards` name the manifest shards under `folder`, those of earlier runs first."""

    job: JobSpec
    folder: RunFolder
    checkpoint: str
    """The checkpoint's location as in the job, "@" and the first 12 digits of its digest."""
    candidate_resolutions: tuple[tuple[int, int], ...]
    recipes: tuple[Recipe, ...]
    """With those that run only for others."""
    image_column: str | None
    uri_policy: UriPolicy
    carried_schema: pa.Schema | None
    shards: tuple[str, ...]
    num_images: int
    num_new_images: int
    num_ignored_files: int
    absent: Mapping[str, ShardAbsences]
    wanted: Wanted

    @property
    def recipe_digests(self) -> dict[str, str]:
        """Of those whose labels are written."""
        return _digests(self.recipes)

    @property
    def duplicate_min_chars(self) -> dict[str, int]:
        """By recipe, from how many characters on a text that an earlier row has is flagged."""
        gates = {recipe.name: recipe.loaded.file.last.gates.duplicate for recipe in self.recipes if recipe.is_written}
        return {name: gate.min_chars for name, gate in gates.items() if gate is not None}

    @property
    def sink_config(self) -> SinkConfig:
        return SinkConfig(
            output_uri=self.folder.output_uri,
            checkpoint=self.checkpoint,
            recipe_digests=self.recipe_digests,
            carried_schema=self.carried_schema,
            run=self.wanted.run,
        )

    @property
    def tables(self) -> list[str]:
        """Label tables of the job's recipes, in the order of `ALL_TABLES`."""
        written = {recipe.table for recipe in self.recipes if recipe.is_written}
        return [table for table in ALL_TABLES if table in written]


@dataclass(frozen=True, kw_only=True)
class InspectedJob:
    """A job whose output, checkpoint and source were looked at, and nothing written."""

    job: JobSpec
    folder: RunFolder
    source: Source
    checkpoint_digest: str
    candidate_resolutions: tuple[tuple[int, int], ...]
    recipes: tuple[Recipe, ...]
    uri_policy: UriPolicy
    identity: Mapping[str, Any]

    @property
    def recipe_digests(self) -> dict[str, str]:
        """Of those whose labels are written."""
        return _digests(self.recipes)

    @property
    def checkpoint(self) -> str:
        """As `Work.checkpoint`."""
        return f"{self.job.checkpoint}@{self.checkpoint_digest[:12]}"

    def resolve(
        self,
        *,
        run: int = 1,
        limit: int | None = None,
        list_source: bool = True,
        retried_kinds: frozenset[str] = TRANSIENT_KINDS,
    ) -> Work:
        """Writes the manifest of what is new in the source; the caller holds the output's lease.

        Args:
            run: the number of this run.
            limit: label at most this many images of the source, those of earlier runs on this output included; those
                that an earlier run has listed are finished even if they are more.
            list_source: look for new images; else the images that earlier runs have listed are all.
            retried_kinds: of images in quarantine, the error kinds to try again.

        Raises:
            ValueError: one line for what does not go with what an earlier run has left at the output, or a source
                that cannot be listed.
        """
        folder = self.folder
        earlier = folder.get_json(RUN_FILE)
        if earlier is not None:
            _refuse_changes(earlier["identity"], self.identity, folder.output_uri)
        if earlier is not None and not list_source:
            manifest = {key: value for key, value in earlier.items() if key != "identity"}
        else:
            manifest = _extend_manifest(self.source, folder, earlier, limit)
        folder.put_json(RUN_FILE, {"identity": self.identity, **manifest})
        put_recipes(folder, self.recipes)
        _put_job(folder, self.job, self.recipes)
        absent = absences(manifest)
        return Work(
            job=self.job,
            folder=folder,
            checkpoint=self.checkpoint,
            candidate_resolutions=self.candidate_resolutions,
            recipes=self.recipes,
            image_column=self.source.image_column,
            uri_policy=self.uri_policy,
            carried_schema=self.source.carried_schema,
            shards=tuple(listed_shards(manifest)),
            num_images=manifest["num_images"],
            num_new_images=manifest["num_images"] - (earlier["num_images"] if earlier else 0),
            num_ignored_files=manifest["num_ignored_files"],
            absent=absent,
            wanted=Wanted(
                recipe_digests=self.recipe_digests,
                run=run,
                retried_kinds=retried_kinds,
                absent_from=frozenset(absent),
            ),
        )


def inspect(job: JobSpec, *, probe_output: bool = True) -> InspectedJob:
    """Checks recipes, output, checkpoint and source.

    Args:
        probe_output: find out whether the output can be written, by writing a small object and removing it.

    Raises:
        JobError: the recipes; see `make_recipes`.
        ValueError: one line for whatever is missing, unreadable, forbidden, empty, or does not go with what an earlier
            run has left at the output.
    """
    check_recipes(job.recipes)
    output_uri = canonical_uri(job.output.uri)
    folder = RunFolder(output_uri)
    patience = Patience.from_environment(at_most_s=FIRST_CONTACT_S)
    if probe_output:
        open_store(output_uri, patience=patience).check_writable(output_uri)
    earlier = folder.get_json(RUN_FILE)
    if earlier is None:
        _refuse_foreign_files(output_uri)
    with outlined(job.checkpoint) as outline:  # this process may be on a machine that never runs the model
        check_checkpoint(outline.folder)
        processor = Processor.from_checkpoint(outline.folder)
        digest = checkpoint_digest(outline.folder)
    recipes = make_recipes(job.recipes, checkpoint_digest=digest)
    columns = _columns(recipes)
    source = open_source(job.source, columns, without=folder.written_uris, limits=job.limits)
    _refuse_colliding_columns(source.carried_schema, job)
    uri_policy = UriPolicy.of_source(job.source, source.folder_uri)
    identity = _identity(job, digest, recipes, columns, source.carried_schema)
    if outline.objects is not None:
        identity[_OBJECTS] = {"uri": canonical_uri(job.checkpoint), "sha256": outline.objects}
    if earlier is not None:
        _refuse_changes(earlier["identity"], identity, output_uri)
    return InspectedJob(
        job=job,
        folder=folder,
        source=source,
        checkpoint_digest=digest,
        candidate_resolutions=processor.config.candidate_resolutions,
        recipes=recipes,
        uri_policy=uri_policy,
        identity=identity,
    )


def listed_shards(run: Mapping[str, Any]) -> list[str]:
    """The manifest shards that `run.json` names, those of earlier runs first."""
    return [shard for listed in run["shards_by_run"] for shard in listed]


def absences(run: Mapping[str, Any]) -> dict[str, ShardAbsences]:
    """By shard, what `run.json` says of its images that the source no longer has."""
    return {shard: ShardAbsences(**of_shard) for shard, of_shard in run.get("absent", {}).items()}


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


def _put_job(folder: RunFolder, job: JobSpec, recipes: Sequence[Recipe]) -> None:
    """With locations that mean the same in every folder, and each recipe under its id."""
    roots = job.source.image_roots
    places = {**_places(job), "image_roots": roots and tuple(map(canonical_uri, roots))}
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


def _places(job: JobSpec) -> dict[str, str]:
    """Keys of the source that say where it lies, spelled so that they mean the same in every folder."""
    given = {"uri": job.source.uri, "image_root": job.source.image_root}
    return {key: canonical_uri(uri) for key, uri in given.items() if uri is not None}


def _columns(recipes: Sequence[Recipe]) -> SourceColumns:
    """The columns that the recipes read, whichever recipe names them."""
    named = {key: column for recipe in recipes for key, column in columns_of(recipe.spec).items()}
    has_turns = any("turns" in needed_facts(recipe.loaded, recipe.spec) for recipe in recipes)
    return SourceColumns(
        questions=named.get("questions_from"),
        original_answers=named.get("answers_from"),
        queries=named.get("queries_from"),
        conversation=named.get("conversation_from", CONVERSATION_AUTO if has_turns else None),
        original_text=named.get("original_from"),
        marks=named.get("marks_from"),
    )


def _digests(recipes: Sequence[Recipe]) -> dict[str, str]:
    return {recipe.name: recipe.digest for recipe in recipes if recipe.is_written}


def _identity(
    job: JobSpec, digest: str, recipes: Sequence[Recipe], columns: SourceColumns, carried_schema: pa.Schema | None
) -> dict[str, Any]:
    """What an output was made from; a later run may only add recipes to it."""
    return {
        "schema_version": SCHEMA_VERSION,
        "output.keep_versions": "a number" if job.output.keep_versions else "not set",
        # The same relative path names something else in another folder. What the source's tables are trusted with may
        # change: the images are the same ones.
        "source": job.source.model_dump(mode="json", exclude={*job.source.TRUST, "image_root", *_at_default(job)})
        | _places(job),
        "columns carried along": {field.name: str(field.type) for field in carried_schema or ()},
        # The manifest holds what these columns say: images listed without them would be asked nothing.
        "columns read": asdict(columns),
        "checkpoint digest": digest,
        "recipes": _digests(recipes),
    }


def _at_default(job: JobSpec) -> set[str]:
    """Of the later keys of a source, those that the job does not use: outputs made before they came lack them."""
    fields = type(job.source).model_fields
    return {key for key in _LATER_SOURCE_KEYS if getattr(job.source, key) == fields[key].default}


def _refuse_changes(earlier: Mapping[str, Any], now: Mapping[str, Any], output_uri: str) -> None:
    changed = [
        key
        for key in ("schema_version", "output.keep_versions", "source", "columns carried along", "checkpoint digest")
        if earlier.get(key) != now[key]
    ]
    if "checkpoint digest" not in changed and _are_rewritten(earlier.get(_OBJECTS), now.get(_OBJECTS)):
        changed.append(
            f"state of the weight files in {now[_OBJECTS]['uri']} (written again since, by their ETags; the same bytes "
            "may be used from another prefix)"
        )
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


def _are_rewritten(earlier: Mapping[str, str] | None, now: Mapping[str, str] | None) -> bool:
    """Whether the objects at one place are others than before. At another place there is only the digest to compare: a
    copy has ETags of its own, as have objects that were uploaded in other parts. Earlier releases recorded none."""
    if earlier is None or now is None or earlier["uri"] != now["uri"]:
        return False
    return earlier["sha256"] != now["sha256"]


def _refuse_foreign_files(output_uri: str) -> None:
    """What a run writes replaces what is there, so nothing of the user's may lie in its places."""
    store = open_store(output_uri)
    card_uri = join_uri(output_uri, CARD_NAME)
    found = [card_uri] if store.exists(card_uri) else []
    latest_uri = join_uri(output_uri, LATEST_NAME)
    found += [latest_uri] if store.exists(latest_uri) else []
    for name in (*ALL_TABLES, VERSIONS_NAME):
        found += [info.uri for info in itertools.islice(store.list_or_empty(join_uri(output_uri, name)), 1)]
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
    by_run: list[list[str]] = [list(shards) for shards in earlier["shards_by_run"]] if earlier else []
    num_images: int = earlier["num_images"] if earlier else 0
    new_rows = NewRows(source, [[folder.shard_uri(shard) for shard in shards] for shards in by_run])
    remaining = None if limit is None else max(0, limit - num_images)
    added = write_manifest(new_rows, folder.manifest_uri, limit=remaining, first_shard=sum(map(len, by_run)))
    absent = absences(earlier or {})
    if new_rows.absent is not None:  # else the listing ended at the limit, and says nothing of what it did not list
        absent = put_absent(folder.absent_uri, new_rows.absent, absent)
    return {
        "absent": {shard: asdict(of_shard) for shard, of_shard in absent.items()},
        "shards_by_run": [*by_run, list(added.shards)] if added.shards else by_run,
        "num_images": num_images + added.num_images,
        "num_ignored_files": added.num_ignored,
        "shard_sha256": {**(earlier.get("shard_sha256", {}) if earlier else {}), **added.sha256},
    }
