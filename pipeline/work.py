"""A job -> the work it stands for: everything that is looked up once, before a cluster starts, so that bad input fails
in seconds with one line.

Knows no Ray: what it finds is handed to the stages as plain values.
"""

import itertools
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from model.checkpoint_files import digest as checkpoint_digest
from model.checkpoint_outline import outlined
from model.prompt import Processor
from pipeline.absent import ShardAbsences
from pipeline.checkpoint_check import check_checkpoint
from pipeline.identity import OBJECTS, identity_of, refuse_changes
from pipeline.ledger import RunFolder
from pipeline.list_source import open_source
from pipeline.output_names import CARD_NAME, LATEST_NAME, RUN_FILE, VERSIONS_NAME
from pipeline.patience import FIRST_CONTACT_S, Patience
from pipeline.pending import TRANSIENT_KINDS, Wanted
from pipeline.recipes import Recipe, check_recipes, make_recipes
from pipeline.recipes.recipe import needed_facts
from pipeline.recorded_job import put_job
from pipeline.recorded_recipes import put_recipes
from pipeline.run_listing import absences, extend_manifest, listed_shards
from pipeline.sink import SinkConfig
from pipeline.source import CONVERSATION_AUTO, Source, SourceColumns
from pipeline.storage import canonical_uri, join_uri, open_store
from pipeline.uri_policy import UriPolicy
from schemas.job import JobSpec
from schemas.recipe_specs import columns_of
from schemas.tables import ALL_TABLES, carried_name


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
            refuse_changes(earlier["identity"], self.identity, folder.output_uri)
        if earlier is not None and not list_source:
            manifest = {key: value for key, value in earlier.items() if key != "identity"}
        else:
            manifest = extend_manifest(self.source, folder, earlier, limit)
        folder.put_json(RUN_FILE, {"identity": self.identity, **manifest})
        put_recipes(folder, self.recipes)
        put_job(folder, self.job, self.recipes)
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
    identity = identity_of(job, digest, _digests(recipes), columns, source.carried_schema)
    if outline.objects is not None:
        identity[OBJECTS] = {"uri": canonical_uri(job.checkpoint), "sha256": outline.objects}
    if earlier is not None:
        refuse_changes(earlier["identity"], identity, output_uri)
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
