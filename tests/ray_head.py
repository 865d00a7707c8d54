"""A Ray cluster of one machine with its dashboard, as `ray start` makes it; and a way to it that can be cut."""

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from tests.command import COMMAND, REPOSITORY

START_TIMEOUT_S = 120


@contextlib.contextmanager
def ray_head() -> Iterator[str]:
    """Gives the URL of its dashboard. All of its processes are in a group of their own, which is ended with it."""
    folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # short: Ray puts sockets below it
    gcs, client, agent, dashboard = free_ports(4)
    command = [
        *(str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats"),
        *("--num-cpus=2", f"--temp-dir={folder}", f"--port={gcs}", f"--ray-client-server-port={client}"),
        *("--include-dashboard=true", "--dashboard-host=127.0.0.1", f"--dashboard-port={dashboard}"),
        *(f"--dashboard-agent-listen-port={agent}", "--min-worker-port=0", "--max-worker-port=0"),
    ]
    environment = {key: value for key, value in os.environ.items() if key != "RAY_ADDRESS"} | {
        "RAY_AUTH_MODE": "disabled",
        "PATH": f"{COMMAND.parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(REPOSITORY),
        "OMP_NUM_THREADS": "1",
    }
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(command, env=environment, stdout=log, stderr=log, start_new_session=True)
        try:
            url = f"http://127.0.0.1:{dashboard}"
            _wait_for(url, head, folder / "head.log")
            yield url
        finally:
            _end(head)
            shutil.rmtree(folder, ignore_errors=True)


def _wait_for(url: str, head: subprocess.Popen[bytes], log: Path) -> None:
    give_up_at = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < give_up_at and head.poll() is None:
        with contextlib.suppress(OSError):
            urllib.request.urlopen(f"{url}/api/version", timeout=5).close()
            return
        time.sleep(0.2)
    raise RuntimeError(f"no Ray dashboard at {url}: {log.read_text()[-2000:]}")


def _end(head: subprocess.Popen[bytes]) -> None:
    """`ray start --block` ends what it has started when it is asked to; what is left of the group after that, too. Its
    workers end with their raylet."""
    head.send_signal(signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        head.wait(timeout=10)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(head.pid, signal.SIGKILL)
    head.wait()


def free_ports(number: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(number)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


class Way:
    """Passes connections on to a port of this machine, until it is cut; what is connected then is reset."""

    def __init__(self, url: str) -> None:
        self._to = ("127.0.0.1", int(url.rpartition(":")[2]))
        (self._port,) = free_ports(1)
        self._open: list[socket.socket] = []
        self.num_connections = 0
        self.mend()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def mend(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", self._port))
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def cut(self) -> None:
        for one in (self._listener, *self._open):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        self._open.clear()

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                here, _ = listener.accept()
                there = socket.create_connection(self._to)
                self._open += [here, there]
                self.num_connections += 1
                for ends in ((here, there), (there, here)):
                    threading.Thread(target=_pass_on, args=ends, daemon=True).start()


def _pass_on(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
