"""`labelmill submit`: a job file -> a run of it on a Ray cluster elsewhere, followed to its end."""

import secrets
import shlex
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from jobs.exit_codes import EXIT_DONE, EXIT_INTERRUPTED
from jobs.job_file import opened_in_its_folder
from jobs.working_directory import check_locations, files_to_send, pack
from schemas.job import JobSpec

UNWIND_S = 30
"""What a run may take to end after its grace: the actors, the lease, the connection to Ray."""


def submit_file(path: Path, *, overrides: Sequence[str], limit: int | None, address: str, wait: bool) -> int:
    """Returns the job's exit code, or 0 once it is sent if not `wait`. Bad input raises before anything is sent."""
    with opened_in_its_folder(path, overrides) as opened:
        job = opened.job
        names = files_to_send(Path(), opened.file, job)
        check_locations(job, names)
    from jobs.ray_jobs import LostError, connect, send  # not at the top: a typo in the job file is told before Ray is

    client = connect(address)
    id = f"{job.name}-{secrets.token_hex(4)}"
    with tempfile.TemporaryDirectory(prefix="labelmill-") as folder:
        archive = Path(folder) / "working_directory.zip"
        pack(path.parent, names, archive)
        try:
            send(
                client,
                id=id,
                entrypoint=run_command(opened.file, opened.overrides, limit=limit),
                archive=archive,
                env={"RAY_JOB_STOP_WAIT_TIME_S": str(stop_wait_s(job))},
            )
        except LostError as error:
            raise RuntimeError(f"{error}; whether it runs: ray job status {_at(address, id)}") from error
    _say(f"job {id} is sent with {len(names)} file{'s' if len(names) > 1 else ''}")
    if not wait:
        _say(f"it ends by itself; {_commands(address, id)}")
        return EXIT_DONE
    return _follow(client, id, address)


def run_command(job_file: str, overrides: Sequence[str], *, limit: int | None = None) -> str:
    """For a shell on the cluster, in the working folder. `exec`: signals and the exit code are the command's own."""
    options = [part for override in overrides for part in ("--set", override)]
    if limit is not None:
        options += ["--limit", str(limit)]
    return shlex.join(["exec", "labelmill", "run", job_file, *options])


def stop_wait_s(job: JobSpec) -> int:
    """Seconds from the request to stop until Ray, or Kubernetes, may kill the run."""
    return int(job.resources.stop_grace_s) + UNWIND_S


def _follow(client: object, id: str, address: str) -> int:
    from jobs.ray_jobs import LostError, follow

    try:
        ended = follow(client, id, show=_show, say=_say)  # type: ignore[arg-type]
    except KeyboardInterrupt:
        _say(f"the job goes on; {_commands(address, id)}")
        return EXIT_INTERRUPTED
    except LostError as error:
        raise RuntimeError(f"{error}; the job may go on: {_commands(address, id)}") from error
    if ended.why:
        _say(ended.why)
    return ended.exit_code


def _commands(address: str, id: str) -> str:
    return f"follow it with: ray job logs --follow {_at(address, id)}; stop it with: ray job stop {_at(address, id)}"


def _at(address: str, id: str) -> str:
    return f"--address {shlex.quote(address)} {id}"


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _say(text: str) -> None:
    print(f"labelmill: {text}", file=sys.stderr, flush=True)
