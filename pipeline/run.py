"""A job -> its dataset: resolves the work, runs the pipeline, finalizes, and accounts for every input.

What the command line prints is not known here; progress is handed to a callback.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from typing import Any

from pipeline.dataset_card import dataset_card
from pipeline.finalize import Accounts, finalize
from pipeline.ledger import CARD_NAME
from pipeline.progress import Progress
from pipeline.storage import join_uri, open_store
from pipeline.work import Work, resolve
from schemas import __version__
from schemas.job import JobSpec


@dataclass(kw_only=True)
class _Counts:
    num_images: int = 0
    num_labels: int = 0
    num_quarantined_images: int = 0


def run_job(
    job: JobSpec, *, limit: int | None = None, on_progress: Callable[[Progress], None] = lambda progress: None
) -> dict[str, Any]:
    """Labels every image of the source that is not labelled yet, and writes the dataset.

    Returns: the summary, as written to `<output>/_run/summary.json`.

    Raises:
        ValueError: bad input, before anything ran; one line.
        ReconciliationError: the accounts do not add up; the dataset was not written.
    """
    started_at, clock = datetime.now(UTC), _Clock()
    on_progress(Progress(phase="listing"))
    work = resolve(job, limit=limit)
    clock.lap("listing_s")
    counts = _label(work, on_progress)
    clock.lap("labeling_s")
    on_progress(Progress(phase="finalizing", num_images_done=counts.num_images, num_images=counts.num_images))
    accounts = finalize(
        work.folder,
        shards=work.shards,
        tables=work.tables,
        recipe_digests=work.recipe_digests,
        carried_schema=work.carried_schema,
    )
    clock.lap("finalizing_s")
    summary = _summary(work, accounts, counts, clock, started_at)
    store, output_uri = open_store(work.folder.output_uri), work.folder.output_uri
    store.put(join_uri(output_uri, CARD_NAME), dataset_card(summary).encode())
    work.folder.put_json("summary.json", summary)
    return summary


def _label(work: Work, on_progress: Callable[[Progress], None]) -> _Counts:
    # Imported here: a job that fails on bad input need not wait for Ray.
    from pipeline.cluster import cluster
    from pipeline.label_images import Placement, label_images

    counts = _Counts()
    if not _has_pending(work):
        return counts
    on_progress(Progress(phase="starting", num_images=work.num_images))
    with cluster() as size:
        receipts = label_images(work, Placement.for_cluster(size, work.job.resources))
        for receipt in receipts.iter_rows():
            counts.num_images += receipt["num_images"]
            counts.num_labels += receipt["num_labels"]
            counts.num_quarantined_images += receipt["num_quarantined_images"]
            on_progress(
                Progress(
                    phase="labeling",
                    num_images_done=counts.num_images,
                    num_images=work.num_images,
                    num_labels=counts.num_labels,
                    num_quarantined_images=counts.num_quarantined_images,
                )
            )
    return counts


def _has_pending(work: Work) -> bool:
    """Whether there is anything to label; a second run of a finished job needs no cluster."""
    return any(rows for shard in work.shards for rows in work.folder.pending(shard, work.recipe_digests))


def _summary(work: Work, accounts: Accounts, counts: _Counts, clock: "_Clock", started_at: datetime) -> dict[str, Any]:
    labeling_s = clock.laps_s["labeling_s"]
    return {
        "name": work.job.name,
        "source": work.job.source.uri,
        "output": work.folder.output_uri,
        "checkpoint": work.checkpoint,
        "num_images": accounts.num_images,
        "num_ignored_files": work.num_ignored_files,
        "recipes": {
            recipe.name: {"digest": recipe.digest, **accounts.outcomes[recipe.name]} for recipe in work.recipes
        },
        "num_rows": dict(accounts.num_rows),
        "num_quarantined_images": accounts.num_quarantined_images,
        "quarantined_fraction": accounts.quarantined_fraction,
        "quarantined_by_kind": dict(accounts.quarantined_by_kind.most_common()),
        "this_run": {
            "num_new_images": work.num_new_images,
            "num_images": counts.num_images,
            "num_labels": counts.num_labels,
            "num_quarantined_images": counts.num_quarantined_images,
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
