"""Machines made of network namespaces: each has an address and a `/tmp/ray` of its own, and a cable that can be pulled.

All cables end in one more namespace, the hub; the network of this machine itself is not touched. Needs root and `ip`.
"""

import contextlib
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.command import REPOSITORY

RAY_FOLDER = Path("/tmp/ray")
SUBNET = "10.213.7"
STORE_PORT, GCS_PORT = 5000, 6379
START_TIMEOUT_S = 120


def why_not() -> str | None:
    """Why namespaces can't be made here; None where they can."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if shutil.which("ip") is None or shutil.which("nsenter") is None:
        return "network namespaces need ip (iproute2) and nsenter (util-linux)"
    name = f"lm-{os.getpid()}-probe"
    if subprocess.run(["ip", "netns", "add", name], capture_output=True, check=False).returncode != 0:
        return "network namespaces are not allowed here"
    _ip("netns", "del", name)
    return None


@dataclass(frozen=True, kw_only=True)
class Machine:
    """One namespace, held by a process that sleeps in it."""

    name: str
    address: str
    holder: "subprocess.Popen[bytes]"

    def command(self, *arguments: object) -> list[str]:
        """The command as it runs on this machine."""
        return ["nsenter", "--target", str(self.holder.pid), "--net", "--mount", "--", *map(str, arguments)]

    def start(self, *arguments: object, environment: Mapping[str, str], **how: object) -> "subprocess.Popen[str]":
        """What lies in the repository is importable: another mount namespace forgets the working folder."""
        return subprocess.Popen(  # type: ignore[call-overload,no-any-return]
            self.command(*arguments),
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), **environment},
            cwd=REPOSITORY,
            text=True,
            **how,
        )

    def python(self, source: str, *arguments: object, environment: Mapping[str, str]) -> str | None:
        """Runs some lines of Python there. Returns None, or where they failed what they printed."""
        process = self.start(
            *(sys.executable, "-c", source, *arguments),
            environment=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
        printed, _ = process.communicate()
        return None if process.returncode == 0 else printed or "failed"

    def start_ray(self, *arguments: str, environment: Mapping[str, str]) -> "subprocess.Popen[str]":
        ray = Path(sys.executable).with_name("ray")
        return self.start(
            ray,
            "start",
            "--block",
            f"--node-ip-address={self.address}",
            *arguments,
            environment=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )

    def unplug(self) -> None:
        """Pulls its cable: what it sends arrives nowhere, and nobody tells the others."""
        subprocess.run(self.command("ip", "link", "set", "eth0", "down"), check=True)


@contextlib.contextmanager
def machines(names: Sequence[str]) -> Iterator[dict[str, Machine]]:
    """So many machines on one network, by name, and `hub`, which all of them reach. Ends whatever runs on them."""
    RAY_FOLDER.mkdir(exist_ok=True)
    spaces = {name: f"lm-{os.getpid()}-{name}" for name in ("hub", *names)}
    holders: list[subprocess.Popen[bytes]] = []
    found: dict[str, Machine] = {}
    try:
        for place, (name, space) in enumerate(spaces.items()):
            _ip("netns", "add", space)
            address = f"{SUBNET}.{place + 1}"
            _plug_in(space, spaces["hub"], place, address)
            holder = subprocess.Popen(
                ["ip", "netns", "exec", space, "sh", "-c", f"mount -t tmpfs ray {RAY_FOLDER} && exec sleep infinity"]
            )
            holders.append(holder)
            found[name] = Machine(name=name, address=address, holder=holder)
        _wait_for_mounts(found)
        yield found
    finally:
        for space in spaces.values():
            _end_processes(space)
        for holder in holders:
            holder.wait(timeout=30)
        for space in spaces.values():
            subprocess.run(["ip", "netns", "del", space], capture_output=True, check=False)


@contextlib.contextmanager
def store_at(machine: Machine) -> Iterator[str]:
    """A moto S3 server on that machine; gives its endpoint URL."""
    process = machine.start(
        *(sys.executable, "-m", "moto.server", "-H", machine.address, "-p", STORE_PORT),
        environment={},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield f"http://{machine.address}:{STORE_PORT}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def _plug_in(space: str, hub: str, place: int, address: str) -> None:
    """Cable ends have no names in the network of this machine, not even for a moment."""
    if space == hub:
        _ip("-n", hub, "link", "add", "eth0", "type", "bridge")
    else:
        _ip("-n", hub, "link", "add", f"port{place}", "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("-n", hub, "link", "set", f"port{place}", "master", "eth0", "up")
    _ip("-n", space, "addr", "add", f"{address}/24", "dev", "eth0")
    _ip("-n", space, "link", "set", "eth0", "up")
    _ip("-n", space, "link", "set", "lo", "up")


def _wait_for_mounts(found: Mapping[str, Machine]) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    for machine in found.values():
        mounts = Path(f"/proc/{machine.holder.pid}/mounts")
        while f"ray {RAY_FOLDER} tmpfs" not in mounts.read_text():
            assert machine.holder.poll() is None, f"{machine.name} could not mount a folder of its own"
            assert time.monotonic() < deadline
            time.sleep(0.05)


def _end_processes(space: str) -> None:
    listed = subprocess.run(["ip", "netns", "pids", space], capture_output=True, text=True, check=False).stdout
    for pid in listed.split():
        with contextlib.suppress(ProcessLookupError):
            os.kill(int(pid), 9)


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True, capture_output=True, text=True)
