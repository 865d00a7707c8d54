"""One output, one run at a time: a lease object beside the dataset, renewed while the run lives.

    <output>/_run/lease/NNNNNN.json   one for each run; the highest number is the run's that holds or held the output

Only put-if-absent is needed: a run takes the next number, or learns that another one has. Clocks of two machines are
never compared to call a run dead: it is watched, unless it ran here, where its process can be looked up. The lease also
says how far its run is, which is what `status` shows. Knows no jobs.
"""

import contextlib
import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from pipeline.budget import BudgetSpentError
from pipeline.patience import Patience
from pipeline.storage import StorageError, join_uri, open_store

RENEW_S = 5.0
WATCH_S = 35.0
"""A lease of another machine that is not renewed for so long is of a dead run."""
SETTLE_S = 3.0
"""Where a store cannot put-if-absent, two runs may both believe they have the number: after so long the file tells."""

_TAKEN = "the output was taken by another run at the same moment: wait for it, or end it"

HELD, DONE, FAILED, INTERRUPTED, BUDGET_SPENT = "held", "done", "failed", "interrupted", "budget_spent"


class OutputInUseError(ValueError):
    """Another run works on the output. One line: which, and what to do."""


class LeaseLostError(RuntimeError):
    """Another run has taken the output over while this one was cut off from the store."""


@dataclass(frozen=True, kw_only=True)
class LeaseRecord:
    """What a lease file says."""

    number: int
    owner: str
    host: str
    process: str
    """Identifies the process on its machine, and the machine; "" where the system cannot tell."""
    pid: int
    started_at: str
    renewed_at: str
    renewals: int = 0
    state: str = HELD
    message: str = ""
    """Why it failed, or stopped."""
    progress: Mapping[str, Any] = field(default_factory=dict)

    @property
    def who(self) -> str:
        return f"process {self.pid} on {self.host}, started {self.started_at}"


def read_lease(lease_uri: str, *, patience: Patience | None = None) -> LeaseRecord | None:
    """The lease of the run that holds the output, or held it last; None before the first."""
    store = open_store(lease_uri, patience=patience)
    uris = [info.uri for info in store.list_or_empty(lease_uri) if info.uri.endswith(".json")]
    return LeaseRecord(**json.loads(store.get(uris[-1]))) if uris else None


def is_alive(record: LeaseRecord, *, lease_uri: str, watch_s: float = WATCH_S) -> bool:
    """Whether the run still holds its lease; takes up to `watch_s` where only watching can tell."""
    if record.state != HELD:
        return False
    if ran_here(record):
        return runs_here(record)
    until = time.monotonic() + watch_s
    while time.monotonic() < until:
        time.sleep(min(1.0, watch_s / 5))
        now = read_lease(lease_uri)
        if now is None or (now.number, now.renewals, now.state) != (record.number, record.renewals, record.state):
            return now is not None and now.state == HELD
    return False


class Lease:
    """A lease that is held; made by `hold_lease`."""

    def __init__(self, lease_uri: str, record: LeaseRecord) -> None:
        self._lease_uri, self._record = lease_uri, record
        self._lost = ""
        self._over = threading.Event()
        self._progress: Callable[[], Mapping[str, Any]] = dict
        self._thread = threading.Thread(target=self._renew, name="lease", daemon=True)
        self._thread.start()

    @property
    def number(self) -> int:
        """Of the run: one higher than that of the run before it."""
        return self._record.number

    def report(self, progress: Callable[[], Mapping[str, Any]]) -> None:
        """What each renewal says of the run from now on."""
        self._progress = progress

    def check(self) -> None:
        """Raises LeaseLostError if another run has the output now."""
        if self._lost:
            raise LeaseLostError(self._lost)

    def release(self, state: str, message: str = "") -> None:
        self._over.set()
        self._thread.join()
        if not self._lost:
            self._put(state=state, message=message)

    def _renew(self) -> None:
        # Not longer than a renewal should take: the next one says as much, and the end of the run waits for this one.
        patience = Patience.from_environment(at_most_s=RENEW_S)
        while not self._over.wait(RENEW_S):
            try:
                self._look(patience)
                if not self._lost:
                    self._put(patience)
            except StorageError:
                continue  # the store is away, and with it the run; if it stays so, others will call it dead

    def _look(self, patience: Patience) -> None:
        now = read_lease(self._lease_uri, patience=patience)
        if now is not None and now.owner != self._record.owner:
            self._lost = f"the output was taken over by {now.who}: this run looked dead to it; it stops here"
            self._over.set()

    def _put(self, patience: Patience | None = None, **changes: Any) -> None:
        """Never two at a time: `release` waits for the thread that renews."""
        self._record = replace(
            self._record,
            renewed_at=_now(),
            renewals=self._record.renewals + 1,
            progress=dict(self._progress()),
            **changes,
        )
        uri = _lease_uri(self._lease_uri, self._record.number)
        open_store(uri, patience=patience).put(uri, json.dumps(asdict(self._record)).encode())


@contextmanager
def hold_lease(
    lease_uri: str, *, say: Callable[[str], None] = lambda text: None, watch_s: float = WATCH_S
) -> Iterator[Lease]:
    """Holds the output for the block, and writes into the lease how it ended.

    Args:
        say: is told in one sentence why taking the lease needs time, or is less than sure.

    Raises:
        OutputInUseError: another run holds it.
    """
    lease = Lease(lease_uri, _take(lease_uri, say, watch_s))
    try:
        yield lease
    except (KeyboardInterrupt, SystemExit):
        _release(lease, INTERRUPTED)
        raise
    except BudgetSpentError as error:
        _release(lease, BUDGET_SPENT, str(error))
        raise
    except BaseException as error:
        _release(lease, FAILED, " ".join(str(error).split())[:500] or type(error).__name__)
        raise
    lease.release(DONE)


def _release(lease: Lease, state: str, message: str = "") -> None:
    # What ended the run is what its user must hear; that a lease was not released the next run finds out.
    with contextlib.suppress(StorageError):
        lease.release(state, message)


def _take(lease_uri: str, say: Callable[[str], None], watch_s: float) -> LeaseRecord:
    before = read_lease(lease_uri)
    if before is not None and before.state == HELD:
        if not ran_here(before):
            say(f"an earlier run ({before.who}) has not ended properly: waiting {watch_s:.0f} s to see if it lives")
        if is_alive(before, lease_uri=lease_uri, watch_s=watch_s):
            raise OutputInUseError(
                f"the output is in use by another run ({before.who}): wait for it, or end it; if it is dead, "
                "the next attempt will find that out"
            )
    now = _now()
    record = LeaseRecord(
        number=before.number + 1 if before else 1,
        owner=uuid.uuid4().hex,
        host=socket.gethostname(),
        process=_process_here(os.getpid()),
        pid=os.getpid(),
        started_at=now,
        renewed_at=now,
    )
    uri = _lease_uri(lease_uri, record.number)
    store = open_store(uri)
    if not store.put_if_absent(uri, json.dumps(asdict(record)).encode()):
        raise OutputInUseError(_TAKEN)
    if not store.has_conditional_puts(lease_uri):
        say("this store has no conditional puts: two runs that start within the same second are told apart by waiting")
        time.sleep(SETTLE_S)
        now_there = read_lease(lease_uri)
        if now_there is None or now_there.owner != record.owner:
            raise OutputInUseError(_TAKEN)
    if before is not None:
        _remove_older(lease_uri, record.number)
    return record


def ran_here(record: LeaseRecord) -> bool:
    """Whether its process was one of this machine, in the same space of process ids (a container has its own)."""
    here = _process_here(record.pid)
    return bool(here) and record.process.rpartition(" ")[0] == here.rpartition(" ")[0]


def runs_here(record: LeaseRecord) -> bool:
    """Whether the process of a run that `ran_here` still lives."""
    return record.process == _process_here(record.pid)


def _remove_older(lease_uri: str, number: int) -> None:
    store = open_store(lease_uri)
    for info in list(store.list_or_empty(lease_uri)):
        if info.uri < _lease_uri(lease_uri, number):
            store.delete(info.uri)


def _lease_uri(lease_uri: str, number: int) -> str:
    return join_uri(lease_uri, f"{number:06d}.json")


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _process_here(pid: int) -> str:
    """Host, boot, space of process ids and start time of a process of this machine, "-" for one that has ended; ""
    where the system does not say."""
    try:
        machine = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        space = os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        start = "-" if state == "Z" else fields[18]
    except OSError:
        start = "-"
    return f"{socket.gethostname()} {machine} {space} {start}"
