"""A step of a job's accounts -> what it does, by the pipeline's own code, and what there is to say about it.

Each step is run in a process of its own (see `scale`). None of them starts a cluster: where a run would label, nothing
is pending. What a step needs is imported in it, so that its memory is that of the command it stands for.
"""

import os
from collections.abc import Callable, Mapping
from typing import Any

from pipeline import local
from pipeline.lease import hold_lease
from pipeline.whole_shards import Finalized
from pipeline.work import inspect
from tests.benchmarks.scale_data import commit_first, job_of, label_pending

Said = dict[str, Any]


def write_manifest(folder_uri: str, source: str, output: str) -> Said:
    inspected = inspect(job_of(folder_uri, source, output))
    with hold_lease(inspected.folder.lease_uri) as lease:
        work = inspected.resolve(run=lease.number)
    return {"images": work.num_images, "shards": len(work.shards)}


def commit_half(folder_uri: str, source: str, output: str) -> Said:
    without_fsync()
    work = inspect(job_of(folder_uri, source, output)).resolve(run=1, list_source=False)
    return {"commits": commit_first(work, work.num_images // 2)}


def plan(folder_uri: str, source: str, output: str) -> Said:
    """What a run does on the driver before it labels; half of the shards are read to find the first pending pair."""
    from pipeline.run import _has_pending

    work = inspect(job_of(folder_uri, source, output)).resolve(run=2)
    last = Finalized.read(work.folder)
    shards = list(work.shards)
    if last is not None:
        absent = {shard: of_shard.sha256 for shard, of_shard in work.absent.items()}
        shards = last.unsettled_shards(work.folder, work.shards, work.wanted, absent)
    return {"new images": work.num_new_images, "unsettled shards": len(shards), "pending": _has_pending(work, shards)}


def list_pending(folder_uri: str, source: str, output: str) -> Said:
    """What the tasks of a run do, one shard after another."""
    work = inspect(job_of(folder_uri, source, output)).resolve(run=2, list_source=False)
    batches = (rows for shard in work.shards for rows in work.folder.pending(shard, work.wanted))
    return {"pending images": sum(map(len, batches))}


def tell_status(folder_uri: str, source: str, output: str) -> Said:
    from pipeline.status import status

    found = status(job_of(folder_uri, source, output).output.uri)
    return {"images": found.num_images, "pending pairs": found.num_pending}


def label(folder_uri: str, source: str, output: str) -> Said:
    without_fsync()
    work = inspect(job_of(folder_uri, source, output)).resolve(run=1)
    return {"blocks": label_pending(work)}


def run(folder_uri: str, source: str, output: str) -> Said:
    """A run with nothing left to label: the first time it finalizes, the second time it has nothing to do."""
    from pipeline.run import run_job

    times = run_job(job_of(folder_uri, source, output))["times"]
    return {name: seconds for name, seconds in times.items() if name.endswith("_s")}


def verify_output(folder_uri: str, source: str, output: str) -> Said:
    from pipeline.verify import verify

    found = verify(job_of(folder_uri, source, output).output.uri)
    return {"images": found.num_images, "rows": sum(found.num_rows.values()), "problems": found.num_problems}


def without_fsync() -> None:
    """Where data are only made for a step to come: the disk need not have them by then."""
    local.os = _OsWithoutFsync()  # type: ignore[attr-defined]


class _OsWithoutFsync:
    def __getattr__(self, name: str) -> Any:
        return (lambda fd: None) if name == "fsync" else getattr(os, name)


STEPS: Mapping[str, Callable[[str, str, str], Said]] = {
    "manifest": write_manifest,
    "commit half": commit_half,
    "plan": plan,
    "list pending": list_pending,
    "status": tell_status,
    "label": label,
    "finalize": run,
    "second run": run,
    "verify": verify_output,
}
