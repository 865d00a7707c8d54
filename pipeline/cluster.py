"""A process -> a member of a Ray cluster: a local one of its own, or the one that RAY_ADDRESS names.

Knows nothing of jobs. Ray's own lines stay out of the terminal; what failed comes out as one error.
"""

import contextlib
import logging
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import ray
from ray.data import DataContext
from ray.exceptions import RayError


class RunFailedError(RuntimeError):
    """The pipeline gave up. One line: the error at the root of what Ray reported, and where Ray's logs are."""


@dataclass(frozen=True, kw_only=True)
class ClusterSize:
    num_cpus: float
    num_gpus: float


@contextlib.contextmanager
def cluster() -> Iterator[ClusterSize]:
    """Joins or starts a cluster and leaves it in the end, ending every process that was started for it.

    A local cluster gets a temporary folder of its own, so that it never meets another one on the machine; it is kept
    only if the run fails.

    Raises:
        RunFailedError: in place of any error of Ray's that leaves the block.
    """
    # The path must be short: Ray puts unix sockets below it, whose names are limited to 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="labelmill-"))
    keep_folder = False
    try:
        with _stderr_to(folder / "ray-driver.log"):
            yield _start(folder)
    except RayError as error:
        keep_folder = True
        raise RunFailedError(f"{_root_cause(error)} (Ray's logs: {folder})") from error
    finally:
        ray.shutdown()
        if not keep_folder:
            shutil.rmtree(folder, ignore_errors=True)


def _start(folder: Path) -> ClusterSize:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _keep_quiet()
    address = os.environ.get("RAY_ADDRESS")
    if address:
        ray.init(address=address, logging_level=logging.CRITICAL, log_to_driver=False, configure_logging=False)
    else:
        ray.init(
            address="local",
            num_cpus=max(2, os.cpu_count() or 2),  # also on a machine with one core: see `Placement`
            _temp_dir=str(folder),
            include_dashboard=False,
            logging_level=logging.CRITICAL,
            log_to_driver=False,
            configure_logging=False,
        )
    context = DataContext.get_current()
    context.enable_progress_bars = False
    _keep_quiet()
    resources = ray.cluster_resources()
    return ClusterSize(num_cpus=resources.get("CPU", 1.0), num_gpus=resources.get("GPU", 0.0))


def _keep_quiet() -> None:
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _stderr_to(log_path: Path) -> Iterator[None]:
    """Sends what the process writes to file descriptor 2 to a file, while Python's sys.stderr stays where it is.

    Ray's C++ core writes there and cannot be told not to, among it an error line for every actor pool of Ray Data.
    """
    terminal_fd = os.dup(2)
    python_stderr = sys.stderr
    with log_path.open("ab") as log, os.fdopen(terminal_fd, "w", buffering=1) as terminal:
        os.dup2(log.fileno(), 2)
        if python_stderr is sys.__stderr__:  # tests and notebooks have put their own in its place
            sys.stderr = terminal
        try:
            yield
        finally:
            ray.shutdown()
            sys.stderr = python_stderr
            os.dup2(terminal.fileno(), 2)


def _root_cause(error: BaseException) -> str:
    """The first line of the innermost error that is not Ray's own wrapping."""
    while True:
        inner = getattr(error, "cause", None) or error.__cause__
        if not isinstance(inner, BaseException):
            break
        error = inner
    lines = [line for line in str(error).splitlines() if line.strip()]
    # A worker's exception that could not be sent whole arrives as text, its last line being the error itself.
    return lines[-1].strip() if lines else type(error).__name__
