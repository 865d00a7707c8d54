"""Progress of a run -> a live bar and table on a terminal, else plain lines; on stderr, so that stdout stays data."""

import dataclasses
import os
import time
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from jobs.progress_text import PHASES, duration, line_of, table_of
from pipeline.progress import Progress

LINE_INTERVAL_S = 30.0


class ProgressDisplay:
    """`with ProgressDisplay() as show: run_job(job, on_progress=show)`"""

    def __init__(self) -> None:
        # A descriptor of its own: the pipeline sends descriptor 2 to a log while Ray's C++ core writes there.
        self._stream = os.fdopen(os.dup(2), "w", buffering=1)
        console = Console(file=self._stream)
        self._live = LiveView(console) if console.is_terminal else None
        self._lines = Lines(self._print)

    def __enter__(self) -> "ProgressDisplay":
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        self._stream.close()

    def __call__(self, progress: Progress) -> None:
        if progress.note:
            self._print(f"labelmill: {progress.note}")
            return
        record = dataclasses.asdict(progress)
        if self._live is not None:
            self._live.show(record)
        else:
            self._lines.show(record)

    def _print(self, text: str) -> None:
        print(text, file=self._stream, flush=True)


class Lines:
    """A line at every change of phase, and at most one every half a minute between."""

    def __init__(self, print_line: Any, *, interval_s: float = LINE_INTERVAL_S) -> None:
        self._print_line, self._interval_s = print_line, interval_s
        self._phase = ""
        self._next_at = 0.0

    def show(self, record: Mapping[str, Any]) -> None:
        phase, now = record.get("phase", "listing"), time.monotonic()
        if phase != self._phase or now >= self._next_at:
            self._next_at = now + self._interval_s
            self._print_line(line_of(record))
        self._phase = phase


class LiveView:
    """A bar, and below it the table."""

    def __init__(self, console: Console) -> None:
        self._bar = Bar(
            SpinnerColumn(),
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[left]}"),
            TimeElapsedColumn(),
            console=console,
        )
        self._task = self._bar.add_task("", total=None, left="")
        self._live = Live(self._bar, console=console, transient=True, redirect_stderr=False, redirect_stdout=False)

    def start(self) -> None:
        self._live.start()

    def stop(self) -> None:
        self._live.stop()

    def show(self, record: Mapping[str, Any]) -> None:
        phase, eta_s = record.get("phase", "listing"), record.get("eta_s")
        done = record.get("num_images_done", 0)
        pending = record.get("num_pending_images")
        self._bar.update(
            self._task,
            description=PHASES[phase],
            completed=done,
            total=record.get("num_images") or None if pending is None else done + pending,
            left=f"{duration(eta_s)} to go" if eta_s else "",
        )
        is_labeling = phase in ("labeling", "stopping")
        self._live.update(Group(self._bar, table_of(record)) if is_labeling else self._bar)
