"""A process -> a member of a Ray cluster: a local one of its own, or the one that RAY_ADDRESS names.

Knows nothing of jobs. Keeps Ray's own log lines out of the terminal; they are in Ray's log folder.
"""

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import ray
from ray.data import DataContext


@dataclass(frozen=True, kw_only=True)
class ClusterSize:
    num_cpus: float
    num_gpus: float


@contextlib.contextmanager
def cluster() -> Iterator[ClusterSize]:
    """Joins or starts a cluster and leaves it in the end, ending every process that was started for it.

    A local cluster gets a temporary folder of its own, so that it never meets another one on the machine.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    address = os.environ.get("RAY_ADDRESS")
    if not address:
        # Ray's C++ core writes to this process's stderr, among it an error line for every actor pool of Ray Data.
        os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    # The path must be short: Ray puts unix sockets below it, whose names are limited to 107 bytes.
    temp_dir = None if address else tempfile.mkdtemp(prefix="labelmill-")
    # Two at least, also on a machine with one core: see `Placement`.
    num_cpus = max(2, os.cpu_count() or 2)
    local_options: dict[str, Any] = (
        {} if address else {"_temp_dir": temp_dir, "include_dashboard": False, "num_cpus": num_cpus}
    )
    try:
        ray.init(
            address=address or "local",
            logging_level=logging.CRITICAL,
            log_to_driver=False,
            configure_logging=False,
            **local_options,
        )
        _keep_quiet()
        resources = ray.cluster_resources()
        yield ClusterSize(num_cpus=resources.get("CPU", 1.0), num_gpus=resources.get("GPU", 0.0))
    finally:
        ray.shutdown()
        if temp_dir is not None:
            shutil.rmtree(temp_dir, ignore_errors=True)


def _keep_quiet() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
