"""A process -> a member of a Ray cluster: a local one of its own, or the one that RAY_ADDRESS names.

Knows nothing of jobs. Ray's own lines stay out of the terminal; what failed comes out as one error.
"""

import contextlib
import logging
import os
import random
import re
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray.data import DataContext
from ray.exceptions import RayError
from ray.experimental import internal_kv
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline.placement import ClusterSize
from pipeline.storage import StorageError

CONNECT_TIMEOUT_S = 10


class RunFailedError(RuntimeError):
    """The pipeline gave up. One line: the error at the root of what Ray reported, and where Ray's logs are."""


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
    except RunFailedError as error:
        keep_folder = str(folder) in str(error)
        raise
    except RayError as error:
        keep_folder = True
        raise RunFailedError(f"{_root_cause(error)} (Ray's logs: {folder})") from error
    finally:
        if not keep_folder:
            shutil.rmtree(folder, ignore_errors=True)


@dataclass(frozen=True)
class StopSignal:
    """Tells the workers of one run to begin nothing new. Kept in Ray's own store of keys: asking costs less than a
    message to an actor, and there is no actor to start."""

    run: str
    """Of all runs on the cluster, this one."""

    def send(self) -> None:
        internal_kv._internal_kv_put(self._key, b"1", overwrite=True)

    @property
    def is_sent(self) -> bool:
        """False outside of a cluster."""
        return internal_kv._internal_kv_initialized() and bool(internal_kv._internal_kv_exists(self._key))

    @property
    def _key(self) -> bytes:
        return f"labelmill/stop/{self.run}".encode()


def prefer_nodes_without_gpus() -> dict[str, Any]:
    """Arguments for one worker that needs none: a node without GPUs, if there is one with room for it, else any. The
    CPUs beside the GPUs are then free for what runs on those."""
    nodes = [node for node in ray.nodes() if node["Alive"]]
    plain = [node for node in nodes if not node["Resources"].get("GPU") and node["Resources"].get("CPU")]
    if not plain or len(plain) == len(nodes):
        return {}
    (node,) = random.choices(plain, weights=[node["Resources"]["CPU"] for node in plain])
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(node["NodeID"], soft=True)}


def _start(folder: Path) -> ClusterSize:
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    _keep_quiet()
    address = os.environ.get("RAY_ADDRESS")
    on_sigterm = signal.getsignal(signal.SIGTERM)
    if address:
        _join(address)
    else:
        _start_local(folder)
    if threading.current_thread() is threading.main_thread():
        # Ray has put a handler in place that prints a C++ stack and aborts; the one before unwinds.
        signal.signal(signal.SIGTERM, on_sigterm)
    context = DataContext.get_current()
    context.enable_progress_bars = False
    _keep_quiet()
    resources = ray.cluster_resources()
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return ClusterSize(
        num_cpus=resources.get("CPU", 1.0),
        num_gpus=resources.get("GPU", 0.0),
        gpus_by_node=tuple(int(node.get("GPU", 0)) for node in nodes),
    )


def _start_local(folder: Path) -> None:
    try:
        ray.init(
            address="local",
            num_cpus=max(2, os.cpu_count() or 2),  # also on a machine with one core: see `Placement`
            _temp_dir=str(folder),
            include_dashboard=False,
            logging_level=logging.CRITICAL,
            log_to_driver=False,
            configure_logging=False,
        )
    except Exception as error:  # Ray raises a plain one where a process of its own did not come up
        raise RunFailedError(
            f"Ray did not start on this machine ({' '.join(str(error).split())}): look into {folder}, and run again"
        ) from error


def _join(address: str) -> None:
    try:
        _check_reachable(address)
        ray.init(address=address, logging_level=logging.CRITICAL, log_to_driver=False, configure_logging=False)
    except OSError as error:
        raise RunFailedError(
            f"RAY_ADDRESS is {address}, but no Ray cluster lets us in there ({error}): check that it runs, and set "
            "RAY_AUTH_MODE=token if it was started with token authentication"
        ) from error


def _check_reachable(address: str) -> None:
    """Where nothing listens, Ray's C++ core would end this process without a word after half a minute."""
    host, _, port = address.rpartition(":")
    if port.isdecimal() and "/" not in host:
        socket.create_connection((host, int(port)), timeout=CONNECT_TIMEOUT_S).close()


def _keep_quiet() -> None:
    for name in ("ray", "ray.data"):
        logging.getLogger(name).setLevel(logging.CRITICAL)


@contextlib.contextmanager
def _stderr_to(log_path: Path) -> Iterator[None]:
    """Sends what the process writes to file descriptor 2 to a file; who wants the terminal has duplicated it before.

    Ray's C++ core writes there and cannot be told not to, among it an error line for every actor pool of Ray Data.
    """
    terminal_fd = os.dup(2)
    with log_path.open("ab") as log:
        os.dup2(log.fileno(), 2)
        try:
            yield
        finally:
            ray.shutdown()
            sys.stderr.flush()
            os.dup2(terminal_fd, 2)
            os.close(terminal_fd)


_RAISED = re.compile(r"^(?!ray\.)(?:[A-Za-z_]\w*\.)*(?P<type>[A-Z]\w*): (?P<message>.+)$", re.MULTILINE)
"""The line that ends a traceback: unindented, an exception's name and its message."""


def _root_cause(error: RayError) -> str:
    """What a stage raised, without Ray's wrapping of it.

    A worker's exception arrives as the text of its tracebacks, in the order in which they were raised. One of our own
    errors for users is a complete sentence; without one, the first is where it began.
    """
    raised = list(_RAISED.finditer(str(error)))
    for match in raised:
        if match["type"] in (ValueError.__name__, StorageError.__name__):
            return match["message"]
    if raised:
        return f"{raised[0]['type']}: {raised[0]['message']}"
    lines = [line for line in str(error).splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
