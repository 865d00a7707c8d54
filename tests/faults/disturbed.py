"""Runs of the command whose processes are killed at random moments, until the job is done: what it then wrote is
compared with what an undisturbed run writes.

Only descendants of the runs that are started here are ever killed.
"""

import contextlib
import os
import random
import re
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pipeline.storage import open_store
from schemas.tables import ALL_TABLES
from tests.command import COMMAND, labelmill
from tests.pipeline.outputs import table_at

RUN_TIMEOUT_S = 300

WORKERS = {
    "fetch actor": r"ray::.*FetchImage.*",
    "tile actor": r"ray::.*TileImage.*",
    "label actor": r"ray::.*LabelImage.*",
    "task": r"ray::(MapBatches\((ListPending|LabelSink)\)|StreamingRepartition.*|IDLE)",
    "decoder": r".*pipeline[./]decode_child.*",
}
"""By kind, the titles of their processes."""
RANK = "rank"
DRIVER, NODE = "driver", "node"
EARLY_SHARE = 0.1
_TITLES = {**WORKERS, NODE: r".*/raylet/raylet .*", RANK: r".*-m model\.rank_process .*"}


Process = tuple[int, str]
"""Its number, and when it was started."""


@dataclass(kw_only=True)
class Kills:
    """Who is killed, and when: drawn from a seed. `num_left` counts down; `by_kind` counts what was killed."""

    seed: int
    num_left: int
    mean_pause_s: float = 2.0
    kinds: Sequence[str] = (*WORKERS, DRIVER)
    by_kind: Counter[str] = field(default_factory=Counter)

    def __post_init__(self) -> None:
        self._draw = random.Random(self.seed)

    def pause_s(self) -> float:
        return self._draw.uniform(0.2, 1.8) * self.mean_pause_s

    def strike(self, driver: int) -> None:
        """Kills one process of the run, if there is one of the kind that was drawn.

        Mostly once labels are made: a start takes longer than labeling here, and would get nearly all of the kills.
        """
        is_labeling = any(True for _ in _of_kind(driver, WORKERS["label actor"]))
        if not is_labeling and self._draw.random() > EARLY_SHARE:
            return
        kind = self._draw.choice(self.kinds)
        pids = [driver] if kind == DRIVER else list(_of_kind(driver, _TITLES[kind]))
        if not pids:
            return
        try:
            os.kill(self._draw.choice(pids), signal.SIGKILL)
        except ProcessLookupError:
            return
        self.by_kind[kind] += 1
        self.num_left -= 1


def run_until_done(job: Path, kills: Kills) -> int:
    """Runs the job again and again, killing as long as kills are left; returns how many runs it took.

    A run that was not killed must end as a run does, and one that survives its killed workers must be the last.
    """
    family: set[Process] = set()
    try:
        for number in range(1, 100):
            code, stderr = _disturbed_run(job, kills, family)
            assert "Traceback" not in stderr, stderr
            if code == 0:
                return number
            assert code in (1, 3, -signal.SIGKILL), stderr  # 3: rows whose workers were killed twice are in quarantine
    finally:
        _end(family)
    raise AssertionError("the job never got done")


def _disturbed_run(job: Path, kills: Kills, family: set[Process]) -> tuple[int, str]:
    process = subprocess.Popen([COMMAND, "run", job], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    family.add((process.pid, _started(process.pid)))
    deadline = time.monotonic() + RUN_TIMEOUT_S
    while process.poll() is None:
        assert time.monotonic() < deadline, "the run hangs"
        family |= {(pid, _started(pid)) for pid in _descendants(process.pid)}
        time.sleep(kills.pause_s())
        if kills.num_left > 0 and process.poll() is None:
            kills.strike(process.pid)
    _, stderr = process.communicate()
    return process.returncode, stderr


def _end(family: set[Process]) -> None:
    """What a killed driver leaves behind ends by itself, Ray's agents after a minute or two; tests leave nothing."""
    for pid, started in family:
        if started and _started(pid) == started:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def processes_below(pid: int, title: str) -> list[int]:
    """Of the descendants of a process, those with such a title."""
    return list(_of_kind(pid, title))


def _of_kind(driver: int, title: str) -> Iterator[int]:
    return (pid for pid in _descendants(driver) if re.fullmatch(title, _title(pid)))


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdecimal() and (parent := _parent(int(entry))):
            children.setdefault(parent, []).append(int(entry))
    found, todo = [], [pid]
    while todo:
        of_this = children.get(todo.pop(), [])
        found += of_this
        todo += of_this
    return found


def _parent(pid: int) -> int | None:
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    except OSError:
        return None


def _started(pid: int) -> str:
    """Tells two processes of one number apart; "" for one that has ended."""
    try:
        state, *fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ""
    return "" if state == "Z" else fields[18]


def _title(pid: int) -> str:
    """ "" for a process that has ended, waited for or not."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def tables_of(output: str) -> dict[str, list[dict[str, Any]]]:
    """Every row of every table, log-probabilities rounded to what does not depend on a batch."""
    store = open_store(output)
    there = [table for table in ALL_TABLES if any(True for _ in store.list_or_empty(f"{output}/{table}"))]
    return {table: [_rounded(row) for row in table_at(output, table).to_pylist()] for table in there}


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    return {name: round(value, 2) if isinstance(value, float) else value for name, value in row.items()}


def assert_same_dataset(disturbed: str, undisturbed: str) -> None:
    """Same rows, same labels, none missing, none double, and the accounts say so."""
    found, expected = tables_of(disturbed), tables_of(undisturbed)
    assert {table: len(rows) for table, rows in found.items()} == {table: len(rows) for table, rows in expected.items()}
    for table, rows in expected.items():
        for row_found, row in zip(found[table], rows, strict=True):
            assert row_found == row, table
    verified = labelmill("verify", disturbed)
    assert verified.code == 0, verified.stdout
