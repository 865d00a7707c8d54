"""`labelmill run`: a job file -> a finished run, printed."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jobs.exit_codes import EXIT_BUDGET, EXIT_DONE, EXIT_QUARANTINED
from jobs.job_file import opened_job
from jobs.progress import ProgressDisplay
from jobs.summary_table import print_summary
from schemas.job import JobSpec


def run_file(path: Path, *, overrides: Sequence[str], limit: int | None, as_json: bool) -> int:
    """Returns the exit code; bad input raises."""
    return run_and_print(opened_job(path, overrides), as_json=as_json, limit=limit)


def run_and_print(job: JobSpec, *, as_json: bool, **how: Any) -> int:
    """Returns the exit code; how: as `run_job` takes it."""
    from pipeline.budget import BudgetSpentError

    try:
        summary = run_with_progress(job, **how)
    except BudgetSpentError as spent:
        print(f"labelmill: {spent}", file=sys.stderr)
        if as_json:
            print(json.dumps(spent.record, ensure_ascii=False))
        return EXIT_BUDGET
    print_summary(summary)
    if as_json:
        print(json.dumps(summary, ensure_ascii=False))
    return exit_code(job, summary)


def run_with_progress(job: JobSpec, **how: Any) -> dict[str, Any]:
    """how: as `run_job` takes it."""
    from pipeline.run import run_job  # not at the top: a typo in the job file is told before torch is imported

    with ProgressDisplay() as show:
        return run_job(job, on_progress=show, **how)


def exit_code(job: JobSpec, summary: dict[str, Any]) -> int:
    too_much = summary["quarantined_fraction"] > job.limits.max_quarantined_fraction
    return EXIT_QUARANTINED if too_much else EXIT_DONE
