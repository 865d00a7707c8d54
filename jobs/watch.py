"""`labelmill status OUTPUT --watch`: an output -> its run, followed until it ends, from the store alone."""

import time

from rich.console import Console

from jobs.exit_codes import EXIT_BUDGET, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED
from jobs.progress import Lines, LiveView
from pipeline.status import RUNNING, Status, status_of_run

INTERVAL_S = 2.0

_EXIT_CODES = {"done": EXIT_DONE, "interrupted": EXIT_INTERRUPTED, "budget_spent": EXIT_BUDGET}


def watch_run(output: str, *, interval_s: float = INTERVAL_S) -> int:
    """Returns the exit code that the run has ended with; a run that failed or is dead has 1, and whether too much is in
    quarantine only the run itself tells. Raises ValueError where no run was ever started."""
    console = Console(stderr=True)
    found = status_of_run(output)
    if console.is_terminal:
        found = _watch_live(output, found, console, interval_s)
    else:
        lines = Lines(lambda text: console.print(text, soft_wrap=True, highlight=False, markup=False))
        while found.state == RUNNING:
            lines.show(found.run["progress"])
            time.sleep(interval_s)
            found = status_of_run(output)
    return _EXIT_CODES.get(found.state, EXIT_FAILED)


def _watch_live(output: str, found: Status, console: Console, interval_s: float) -> Status:
    view = LiveView(console)
    view.start()
    try:
        while found.state == RUNNING:
            view.show(found.run["progress"])
            time.sleep(interval_s)
            found = status_of_run(output)
    finally:
        view.stop()
    return found
