"""Progress of a run -> a live bar on a terminal, plain lines elsewhere; both on stderr, so that stdout stays data."""

import os
import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bar

from pipeline.progress import Progress

LINE_INTERVAL_S = 5.0

_PHASES = {
    "listing": "looking at the source, the checkpoint and the output",
    "starting": "starting Ray and loading the model",
    "labeling": "labeling",
    "stopping": "stopping: ending what is under way (ask again to stop at once)",
    "finalizing": "writing the dataset",
}


class ProgressDisplay:
    """`with ProgressDisplay() as show: run_job(job, on_progress=show)`"""

    def __init__(self) -> None:
        # A descriptor of its own: the pipeline sends descriptor 2 to a log while Ray's C++ core writes there.
        self._stream = os.fdopen(os.dup(2), "w", buffering=1)
        console = Console(file=self._stream)
        self._bar = _make_bar(console) if console.is_terminal else None
        self._phase = ""
        self._next_line_at = 0.0

    def __enter__(self) -> "ProgressDisplay":
        if self._bar is not None:
            self._bar.start()
            self._task = self._bar.add_task("", total=None, counts="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        self._stream.close()

    def __call__(self, progress: Progress) -> None:
        text = _PHASES[progress.phase]
        counts = _counts(progress) if progress.phase in ("labeling", "stopping") else ""
        if progress.note:
            print(f"labelmill: {progress.note}", file=self._stream, flush=True)
            return
        if self._bar is not None:
            total = progress.num_images or None
            self._bar.update(
                self._task, description=text, completed=progress.num_images_done, total=total, counts=counts
            )
            return
        now = time.monotonic()
        if progress.phase != self._phase or now >= self._next_line_at:
            self._next_line_at = now + LINE_INTERVAL_S
            print(": ".join(filter(None, (text, counts))), file=self._stream, flush=True)
        self._phase = progress.phase


def _counts(progress: Progress) -> str:
    quarantined = f", {progress.num_quarantined_images} quarantined" if progress.num_quarantined_images else ""
    return f"{progress.num_images_done}/{progress.num_images} images, {progress.num_labels} labels{quarantined}"


def _make_bar(console: Console) -> Bar:
    return Bar(
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("{task.fields[counts]}"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        redirect_stderr=False,
        redirect_stdout=False,
    )
