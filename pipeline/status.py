"""An output's files -> how far its job is: running, dead or finished, from the store alone.

Reads the lease, the manifest's sizes and the commits; it asks no cluster and no process but, on the machine where the
run was started, whether that process still lives.
"""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow.compute as pc

from pipeline.commits import OUTCOMES, QUARANTINED, SKIPPED
from pipeline.lease import HELD, RENEW_S, LeaseRecord, ran_here, read_lease, runs_here
from pipeline.ledger import RunFolder
from pipeline.manifest import sample_ids
from pipeline.output_names import LEASE_NAME, RUN_FILE, RUN_NAME, SUMMARY_FILE
from pipeline.parquet_members import open_table
from pipeline.run_listing import absences, listed_shards
from pipeline.settled import settle
from pipeline.storage import canonical_uri
from pipeline.worker_deaths import WorkerDeaths

RUNNING, DEAD = "running", "dead"
NOT_RENEWED_S = 8 * RENEW_S


@dataclass(kw_only=True)
class Status:
    """state: running, dead (ended without a word), or how the last run ended: done, failed, interrupted,
    budget_spent."""

    output: str
    state: str
    num_images: int = 0
    recipes: dict[str, dict[str, int]] = field(default_factory=dict)
    """By recipe: images labelled, quarantined, skipped and pending."""
    quarantined_by_kind: dict[str, int] = field(default_factory=dict)
    """(image, recipe) pairs."""
    run: dict[str, Any] = field(default_factory=dict)
    """Of the last run: number, who, since when, last sign of life, and what it says of itself."""
    label_actor_deaths: dict[str, int] = field(default_factory=dict)
    """Of the last run, by reason; see `pipeline.worker_deaths`."""
    dataset: dict[str, Any] | None = None
    """What the dataset holds, as the summary of the run that wrote it says; None before the first."""

    @property
    def num_pending(self) -> int:
        """(image, recipe) pairs without an outcome."""
        return sum(counts["pending"] for counts in self.recipes.values())


def status(output: str) -> Status:
    """Raises ValueError where no run was ever started."""
    folder = RunFolder(canonical_uri(output))
    found, run = status_of_run(output), folder.get_json(RUN_FILE)
    summary = folder.get_json(SUMMARY_FILE)
    if summary is not None:
        found.dataset = {key: summary[key] for key in ("num_images", "num_rows", "num_quarantined_images")}
        found.dataset["finished_at"] = summary["times"]["finished_at"]
    found.label_actor_deaths = _deaths(folder, found.run["number"], summary)
    if run is not None:
        _count(folder, run, found)
    return found


def status_of_run(output: str) -> Status:
    """The same without what is counted over all images: one small object is read. Raises ValueError as `status`."""
    folder = RunFolder(canonical_uri(output))
    lease = read_lease(folder.lease_uri)
    if lease is None:
        raise ValueError(f"{output} holds no run of labelmill (no {RUN_NAME}/{LEASE_NAME}): give the output of a job")
    return Status(output=folder.output_uri, state=_state(lease), run=_about(lease))


def _state(lease: LeaseRecord) -> str:
    if lease.state != HELD:
        return lease.state
    if ran_here(lease):
        return RUNNING if runs_here(lease) else DEAD
    return RUNNING if _age_s(lease.renewed_at) < NOT_RENEWED_S else DEAD


def _about(lease: LeaseRecord) -> dict[str, Any]:
    return {
        "number": lease.number,
        "host": lease.host,
        "pid": lease.pid,
        "started_at": lease.started_at,
        "last_sign_of_life_at": lease.renewed_at,
        "message": lease.message,
        "progress": dict(lease.progress),
    }


def _deaths(folder: RunFolder, number: int, summary: Mapping[str, Any] | None) -> dict[str, int]:
    """A run that wrote a summary may have left no records; one that failed or goes on has nothing else."""
    if summary is not None and summary["this_run"].get("number") == number:
        return dict(summary["this_run"].get("label_actor_deaths", {}))
    return WorkerDeaths(folder.in_hand_uri, number).by_reason()


def _age_s(time: str) -> float:
    return (datetime.now(UTC) - datetime.fromisoformat(time)).total_seconds()


def _count(folder: RunFolder, run: dict[str, Any], found: Status) -> None:
    digests: dict[str, str] = run["identity"]["recipes"]
    shards = listed_shards(run)
    found.recipes = {recipe: dict.fromkeys((*OUTCOMES, "pending"), 0) for recipe in digests}
    kinds: Counter[str] = Counter()
    absent, num_lost = absences(run), Counter[str]()

    for shard in shards:
        # One shard after another, because each takes memory; its commits are read many at a time.
        settled = settle(folder.commits(shard), digests)
        outcomes = settled.outcomes
        with open_table(folder.shard_uri(shard)) as manifest:
            found.num_images += manifest.metadata.num_rows
        if shard in absent:
            images = sample_ids(folder.shard_uri(shard))
            is_lost = ~folder.is_present(shard, images)
            num_lost.update({recipe: int(np.sum(is_lost & (settled.find(images, recipe) < 0))) for recipe in digests})
        for ended in outcomes.group_by(["recipe", "status"]).aggregate([([], "count_all")]).to_pylist():
            found.recipes[ended["recipe"]][ended["status"]] += ended["count_all"]
        failed = outcomes.filter(pc.field("status") == QUARANTINED)["error_kind"]
        kinds.update({kind["values"]: kind["counts"] for kind in pc.value_counts(failed).to_pylist()})
    for recipe, counts in found.recipes.items():
        counts[SKIPPED] += num_lost[recipe]
        counts["pending"] = found.num_images - sum(counts[outcome] for outcome in OUTCOMES)
    found.quarantined_by_kind = dict(kinds.most_common())
