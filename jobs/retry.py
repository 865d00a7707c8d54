"""`labelmill retry`: what a finished or interrupted job has in quarantine -> tried once more, printed as a run is."""

from collections.abc import Sequence

from jobs.run import run_and_print
from schemas.errors import ErrorKind


def retry_output(output: str, *, kinds: Sequence[str], overrides: Sequence[str], as_json: bool) -> int:
    """Tries the images in quarantine again, of all error kinds or of those named; nothing is listed anew.

    Returns the exit code, as of a run. Raises ValueError for an unknown kind, an output without a run, or a change of
    the job that its output does not allow.
    """
    wanted = _kinds(kinds)
    from pipeline.recorded_job import job_of  # not at the top: an unknown kind is told before torch is imported

    job = job_of(output, overrides)
    return run_and_print(job, as_json=as_json, list_source=False, retried_kinds=wanted)


def _kinds(names: Sequence[str]) -> frozenset[str]:
    known = [str(kind) for kind in ErrorKind]
    for name in names:
        if name not in known:
            raise ValueError(f"--kind {name}: there is no such kind of error; one of {', '.join(known)}")
    return frozenset(names or known)
