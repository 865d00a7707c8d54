"""A job -> its dataset: resolves the work, runs the pipeline, finalizes, and accounts for every input.

What the command line prints is not known here; progress is handed to a callback.
"""

import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from pipeline.dataset_card import dataset_card
from pipeline.finalize import Accounts, finalize
from pipeline.lease import Lease, hold_lease
from pipeline.ledger import CARD_NAME
from pipeline.leftovers import sweep
from pipeline.pending import TRANSIENT_KINDS
from pipeline.progress import Phase, Progress
from pipeline.recipes.description import describe
from pipeline.stopping import stop_on_signal
from pipeline.storage import join_uri, open_store
from pipeline.versions import dataset_uri, point_to_latest, remove_version, version_name, version_uri
from pipeline.whole_shards import Finalized, dataset_files
from pipeline.work import Work, inspect
from schemas import __version__
from schemas.job import JobSpec

SUMMARY_FILE = "summary.json"


@dataclass(kw_only=True)
class _Counts:
    num_images: int = 0
    num_labels: int = 0
    num_quarantined_images: int = 0

    def add(self, receipt: Mapping[str, int]) -> None:
        for name in vars(self):
            setattr(self, name, getattr(self, name) + receipt[name])

    def progress(self, phase: Phase, work: Work) -> Progress:
        return Progress(
            phase=phase,
            num_images_done=self.num_images,
            num_images=work.num_images,
            num_labels=self.num_labels,
            num_quarantined_images=self.num_quarantined_images,
        )


OnProgress = Callable[[Progress], None]


def run_job(
    job: JobSpec,
    *,
    limit: int | None = None,
    list_source: bool = True,
    retried_kinds: frozenset[str] = TRANSIENT_KINDS,
    on_progress: OnProgress = lambda progress: None,
) -> dict[str, Any]:
    """Labels every image of the source that is not labelled yet, and writes the dataset.

    Args:
        limit: label at most this many images of the source.
        list_source: look for new images; else only those of earlier runs are looked at.
        retried_kinds: of images in quarantine, the error kinds to try again; by default those that may have passed.

    Returns: the summary, as written to `<output>/_run/summary.json`.

    Raises:
        ValueError: bad input, before anything ran, or another run on the output; one line.
        ReconciliationError: the accounts do not add up; the dataset was not written.
        KeyboardInterrupt: the run was asked to stop; what it had begun is committed if there was time.
    """
    started_at, clock = datetime.now(UTC), _Clock()
    on_progress(Progress(phase="listing"))
    inspected = inspect(job)

    def say(text: str) -> None:
        on_progress(Progress(phase="listing", note=text))

    with hold_lease(inspected.folder.lease_uri, say=say) as lease:
        work = inspected.resolve(run=lease.number, limit=limit, list_source=list_source, retried_kinds=retried_kinds)
        clock.lap("listing_s")
        return _run(work, lease, clock, started_at, on_progress)


def _run(work: Work, lease: Lease, clock: "_Clock", started_at: datetime, on_progress: OnProgress) -> dict[str, Any]:
    counts = _Counts()
    last = Finalized.read(work.folder)
    absent = {shard: of_shard.sha256 for shard, of_shard in work.absent.items()}
    shards = list(work.shards)
    if last is not None:
        shards = last.unsettled_shards(work.folder, work.shards, work.wanted, absent)
    if _has_pending(work, shards):
        _label(work, shards, lease, counts, on_progress)
    clock.lap("labeling_s")
    lease.check()
    earlier = work.folder.get_json(SUMMARY_FILE)
    if last is not None and earlier is not None and not shards and last.dataset_is_at(dataset_uri(work.folder)):
        summary = earlier | _this_run(work, counts, clock, started_at)
        work.folder.put_json(SUMMARY_FILE, summary)
        _keep(work, last)
        return summary
    keeps_versions = work.job.output.keep_versions is not None
    version = version_name(work.wanted.run) if keeps_versions else None
    new_uri = version_uri(work.folder, version)
    finalizing = counts.progress("finalizing", work)
    lease.report(lambda: asdict(finalizing))
    on_progress(finalizing)
    accounts = finalize(
        work.folder,
        shards=work.shards,
        tables=work.tables,
        recipe_digests=work.recipe_digests,
        carried_schema=work.carried_schema,
        duplicate_min_chars=work.duplicate_min_chars,
        absent_from=work.absent,
        dataset_uri=new_uri,
    )
    clock.lap("finalizing_s")
    if version is not None and last is not None and dict(last.sha256) == accounts.sha256:
        last_uri = version_uri(work.folder, last.version)
        if last.dataset_is_at(last_uri):
            remove_version(work.folder, version)
            version, new_uri = last.version, last_uri
    summary = _summary(work, accounts) | {"dataset": new_uri} | _this_run(work, counts, clock, started_at)
    open_store(new_uri).put(join_uri(new_uri, CARD_NAME), dataset_card(summary).encode())
    work.folder.put_json(SUMMARY_FILE, summary)
    earlier_versions = last.versions if last is not None else ()
    finalized = Finalized(
        recipe_digests=work.recipe_digests,
        shards=accounts.whole_shards,
        parts=dataset_files(new_uri),
        sha256=accounts.sha256,
        absent=absent,
        version=version,
        versions=tuple(dict.fromkeys((*earlier_versions, version))) if version is not None else (),
        unnamed=last.unnamed if last is not None else (),
    )
    finalized.write(work.folder)
    _keep(work, finalized, sweeping=True)
    return summary


def _keep(work: Work, finalized: Finalized, *, sweeping: bool = False) -> None:
    """Of versions as many as the job keeps, and of what lies below `_run` what is still of use."""
    unnamed = finalized.unnamed
    if sweeping:
        named = {whole.commit.removesuffix(".parquet") for whole in finalized.shards.values()}
        unnamed = sweep(work.folder, named=named, unnamed_before=unnamed)
    versions = finalized.versions[-(work.job.output.keep_versions or 1) :]
    if (versions, unnamed) != (finalized.versions, finalized.unnamed):
        finalized = dataclasses.replace(finalized, versions=versions, unnamed=unnamed)
        finalized.write(work.folder)
    point_to_latest(work.folder, finalized)


def _label(work: Work, shards: Sequence[str], lease: Lease, counts: _Counts, on_progress: OnProgress) -> None:
    # Imported here: a job that fails on bad input need not wait for Ray.
    from pipeline.cluster import cluster
    from pipeline.expert_ranks import expert_ranks
    from pipeline.label_images import label_images, stop_signal
    from pipeline.placement import Placement

    def tell(phase: Phase) -> None:
        on_progress(counts.progress(phase, work))

    def stop() -> None:
        tell("stopping")
        stop_signal(work).send()

    tell("starting")
    lease.report(lambda: asdict(counts.progress("labeling", work)))
    with cluster() as size:
        ranks = expert_ranks(work.job.engine, work.job.checkpoint, size)
        placement = Placement.for_cluster(size, work.job.resources, expert_ranks=ranks)
        with stop_on_signal(stop, grace_s=work.job.resources.stop_grace_s) as stopping:
            for receipt in label_images(work, placement, shards=shards).iter_rows():
                counts.add(receipt)
                lease.check()
                tell("stopping" if stopping.requested.is_set() else "labeling")
            if stopping.requested.is_set():
                raise KeyboardInterrupt


def _has_pending(work: Work, shards: Sequence[str]) -> bool:
    """Whether there is anything to label; a second run of a finished job needs no cluster."""
    return any(work.folder.has_pending(shard, work.wanted) for shard in shards)


def _summary(work: Work, accounts: Accounts) -> dict[str, Any]:
    return {
        "name": work.job.name,
        "source": work.job.source.uri,
        "output": work.folder.output_uri,
        "checkpoint": work.checkpoint,
        "num_images": accounts.num_images,
        "recipes": {
            name: {"digest": digest, **accounts.outcomes[name]} for name, digest in work.recipe_digests.items()
        },
        "num_rows": dict(accounts.num_rows),
        "labelmill_version": __version__,
        "tables": {table: facts.as_dict() for table, facts in accounts.tables.items()},
        "most_repeated": {recipe: [asdict(text) for text in texts] for recipe, texts in accounts.most_repeated.items()},
        "made_by": {recipe.name: describe(recipe) for recipe in work.recipes},
        "source_states": dict(accounts.source_states),
        "num_quarantined_images": accounts.num_quarantined_images,
        "quarantined_fraction": accounts.quarantined_fraction,
        "quarantined_by_kind": dict(accounts.quarantined_by_kind.most_common()),
    }


def _this_run(work: Work, counts: _Counts, clock: "_Clock", started_at: datetime) -> dict[str, Any]:
    """What a run says of itself, whether or not it changed the dataset."""
    labeling_s = clock.laps_s["labeling_s"]
    return {
        "name": work.job.name,
        "num_ignored_files": work.num_ignored_files,
        "this_run": {
            "number": work.wanted.run,
            "num_new_images": work.num_new_images,
            **asdict(counts),
            "images_per_s": round(counts.num_images / labeling_s, 3),
            "labels_per_s": round(counts.num_labels / labeling_s, 3),
        },
        "times": {
            "started_at": started_at.isoformat(timespec="seconds"),
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
            **{name: round(seconds, 3) for name, seconds in clock.laps_s.items()},
        },
        "versions": {"labelmill": __version__}
        | {name: version(name) for name in ("ray", "torch", "pillow", "pyarrow")},
    }


class _Clock:
    """Wall time of a run's phases."""

    def __init__(self) -> None:
        self.laps_s: dict[str, float] = {}
        self._last = time.monotonic()

    def lap(self, name: str) -> None:
        now = time.monotonic()
        self.laps_s[name], self._last = now - self._last, now
