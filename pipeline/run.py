"""A job -> its dataset: resolves the work, runs the pipeline, finalizes, and accounts for every input.

What the command line prints is not known here; progress is handed to a callback.
"""

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext, suppress
from dataclasses import asdict, replace
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from pipeline.budget import Allotment, BudgetSpentError, Moment, allot, deadline, gpu_hours_spent, watch
from pipeline.dataset_card import dataset_card
from pipeline.finalize import Accounts, finalize
from pipeline.lease import Lease, hold_lease
from pipeline.leftovers import sweep
from pipeline.output_names import CARD_NAME, SUMMARY_FILE
from pipeline.pending import TRANSIENT_KINDS
from pipeline.progress import Phase, Progress
from pipeline.recipes.description import describe
from pipeline.run_progress import RunProgress, counting
from pipeline.stopping import stop_on_signal
from pipeline.storage import StorageError, join_uri, open_store
from pipeline.versions import point_to_latest, remove_version, version_name, version_uri
from pipeline.whole_shards import Finalized, dataset_files
from pipeline.work import Work, inspect
from pipeline.worker_deaths import WorkerDeaths, sentence
from schemas import __version__
from schemas.job import JobSpec

_COUNT_S = 10.0


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
        BudgetSpentError: as after a stop, because a budget of the job is spent and images are pending.
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
    progress = RunProgress(work.num_images)
    last = Finalized.read(work.folder)
    absent = {shard: of_shard.sha256 for shard, of_shard in work.absent.items()}
    shards = list(work.shards)
    if last is not None:
        shards = last.unsettled_shards(work.folder, work.shards, work.wanted, absent)
    spent = ""
    if _has_pending(work, shards):
        spent = _label(work, shards, lease, progress, deadline(work.job.budget, started_at), on_progress)
    clock.lap("labeling_s")
    lease.check()
    if spent and _has_pending(work, shards):
        raise _budget_spent(work, shards, spent, _this_run(work, progress, clock, started_at))
    earlier = work.folder.get_json(SUMMARY_FILE)
    if (
        last is not None
        and earlier is not None
        and not shards
        and last.dataset_is_at(version_uri(work.folder, last.version))
    ):
        summary = earlier | _this_run(work, progress, clock, started_at)
        work.folder.put_json(SUMMARY_FILE, summary)
        if (kept := _kept(work, last.versions)) != last.versions:
            last = replace(last, versions=kept)
            last.write(work.folder)
        point_to_latest(work.folder, last)
        return summary
    keeps_versions = work.job.output.keep_versions is not None
    version = version_name(work.wanted.run) if keeps_versions else None
    new_uri = version_uri(work.folder, version)
    progress.phase = "finalizing"
    lease.report(lambda: asdict(progress.now()))
    on_progress(progress.now())
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
    summary = _summary(work, accounts) | {"dataset": new_uri} | _this_run(work, progress, clock, started_at)
    open_store(new_uri).put(join_uri(new_uri, CARD_NAME), dataset_card(summary).encode())
    work.folder.put_json(SUMMARY_FILE, summary)
    unnamed = sweep(
        work.folder,
        named={whole.commit.removesuffix(".parquet") for whole in accounts.whole_shards.values()},
        unnamed_before=last.unnamed if last is not None else (),
    )
    earlier_versions = last.versions if last is not None else ()
    finalized = Finalized(
        recipe_digests=work.recipe_digests,
        shards=accounts.whole_shards,
        parts=dataset_files(new_uri),
        sha256=accounts.sha256,
        absent=absent,
        version=version,
        versions=_kept(work, dict.fromkeys((*earlier_versions, version))) if version is not None else (),
        unnamed=unnamed,
    )
    finalized.write(work.folder)
    point_to_latest(work.folder, finalized)
    return summary


def _kept(work: Work, versions: Iterable[str]) -> tuple[str, ...]:
    """The newest, as many as the job keeps."""
    return tuple(versions)[-(work.job.output.keep_versions or 1) :]


def _label(
    work: Work,
    shards: Sequence[str],
    lease: Lease,
    progress: RunProgress,
    deadline: Moment | None,
    on_progress: OnProgress,
) -> str:
    """Returns the budget because of which images may have been left, or ""."""
    # Imported here: a job that fails on bad input need not wait for Ray.
    from pipeline.cluster import cluster
    from pipeline.expert_ranks import expert_ranks
    from pipeline.label_images import label_images, stop_signal
    from pipeline.placement import Placement
    from pipeline.run_metrics import run_metrics

    if deadline is not None and deadline.is_past:
        return deadline.budget
    budget = work.job.budget
    allotment = allot(shards, budget.max_images, num_pending_in=_num_images_of(work))
    work = _restricted(work, allotment)

    def tell(phase: Phase) -> None:
        progress.phase = phase
        on_progress(progress.now())

    def stop() -> None:
        tell("stopping")
        stop_signal(work).send()

    tell("starting")
    lease.report(lambda: asdict(progress.now()))
    told = run_metrics(work.job.name, progress)
    with (
        _telling_deaths(work),
        cluster() as size,
        told as metrics,
        _counted(work, allotment, progress, metrics.tell_pending),
    ):
        ranks = expert_ranks(work.job.engine, work.job.checkpoint, size)
        needs_gpu = work.job.engine.device == "cuda"
        placement = Placement.for_cluster(size, work.job.resources, expert_ranks=ranks, needs_gpu=needs_gpu)
        num_gpus = placement.num_label_actors * placement.label_num_gpus
        if budget.max_gpu_hours is not None and not num_gpus:
            on_progress(replace(progress.now(), note=_NO_GPUS))
        moments = [deadline, gpu_hours_spent(budget, datetime.now(UTC), num_gpus)]
        progress.begin_labeling()
        with (
            stop_on_signal(stop, grace_s=work.job.resources.stop_grace_s) as stopping,
            watch(moments, stopping.requested) as watched,
        ):
            try:
                for receipt in label_images(work, placement, shards=allotment.shards).iter_rows():
                    progress.add(receipt)
                    metrics.committed(receipt)
                    lease.check()
                    tell("stopping" if stopping.requested.is_set() else "labeling")
            except KeyboardInterrupt:
                if not (watched.spent and stopping.time_is_up):
                    raise
            if stopping.requested.is_set() and not watched.spent:
                raise KeyboardInterrupt
            return watched.spent or (f"budget.max_images ({budget.max_images})" if allotment.leaves_some else "")


@contextmanager
def _telling_deaths(work: Work) -> Iterator[None]:
    """A run that fails writes no summary: its error says which label actors died before."""
    from pipeline.cluster import RunFailedError

    try:
        yield
    except RunFailedError as error:
        with suppress(StorageError):
            if told := sentence(WorkerDeaths(work.folder.in_hand_uri, work.wanted.run).by_reason()):
                raise RunFailedError(f"{error}; before that, {told}") from error
        raise


_NO_GPUS = "budget.max_gpu_hours is never spent here: no label actor has a GPU; budget.deadline limits the time"


def _num_images_of(work: Work) -> Callable[[str], int]:
    """Of a shard, the images that were pending when the run began."""
    return lambda shard: work.folder.num_images_of_run(shard, work.wanted)


def _restricted(work: Work, allotment: Allotment) -> Work:
    if allotment.last_shard_images is None:
        return work
    some = {allotment.shards[-1]: allotment.last_shard_images}
    return replace(work, wanted=replace(work.wanted, max_images_of=some))


def _counted(
    work: Work, allotment: Allotment, progress: RunProgress, on_count: Callable[[], None]
) -> AbstractContextManager[object]:
    """Tells the progress how much there is to label, at once or in time."""
    if allotment.num_images is None:
        return counting(progress, allotment.shards, _num_images_of(work), on_count=on_count)
    progress.expect(allotment.num_images)
    on_count()
    return nullcontext()


def _budget_spent(work: Work, shards: Sequence[str], spent: str, this_run: dict[str, Any]) -> BudgetSpentError:
    num_pending, is_all = _count_pending(work, shards)
    record = {
        **this_run,
        "output": work.folder.output_uri,
        "budget_spent": spent,
        "num_pending_images": num_pending,
        "all_pending_counted": is_all,
    }
    done = this_run["this_run"]["num_images"]
    message = (
        f"{spent} is spent: this run has labelled {done} images, {'' if is_all else 'at least '}{num_pending} are "
        "pending, and the dataset is not written until none is; run the same command again to go on"
    )
    return BudgetSpentError(message, record)


def _count_pending(work: Work, shards: Sequence[str]) -> tuple[int, bool]:
    """Images still pending, and whether all are counted: who has to stop by a time does not count for minutes."""
    until, num_pending = time.monotonic() + _COUNT_S, 0
    for shard in shards:
        num_pending += work.folder.num_pending(shard, work.wanted)
        if num_pending and time.monotonic() > until:
            return num_pending, shard == shards[-1]
    return num_pending, True


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


def _this_run(work: Work, progress: RunProgress, clock: "_Clock", started_at: datetime) -> dict[str, Any]:
    """What a run says of itself, whether or not it changed the dataset."""
    labeling_s = clock.laps_s["labeling_s"]
    return {
        "name": work.job.name,
        "num_ignored_files": work.num_ignored_files,
        "this_run": {
            "number": work.wanted.run,
            "num_new_images": work.num_new_images,
            "label_actor_deaths": WorkerDeaths(work.folder.in_hand_uri, work.wanted.run).by_reason(),
            **progress.summary(labeling_s),
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
