"""`labelmill status`: an output -> how far its job is, printed."""

import dataclasses
import json

from rich.console import Console
from rich.table import Table

from jobs.exit_codes import EXIT_DONE
from jobs.progress_text import line_of, table_of
from pipeline.status import DEAD, RUNNING, Status, status
from pipeline.worker_deaths import sentence

_STATES = {
    RUNNING: "running",
    DEAD: "dead: it ended without a word; run its job again to go on",
    "done": "finished",
    "failed": "failed",
    "interrupted": "interrupted: run its job again to go on",
    "budget_spent": "stopped, because a budget of its job is spent: run its job again to go on",
}


def print_status(output: str, *, as_json: bool) -> int:
    """Returns 0; an output without a run raises ValueError."""
    found = status(output)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    run = found.run
    console.print(f"run {run['number']} of {found.output}: {_STATES[found.state]}")
    console.print(f"  process {run['pid']} on {run['host']}, started {run['started_at']}, ", end="")
    console.print(f"last sign of life {run['last_sign_of_life_at']}")
    if run["message"]:
        console.print(f"  {run['message']}")
    if found.state == RUNNING:
        console.print(f"  {line_of(run['progress'])}")
        console.print(table_of(run["progress"]))
    console.print(_table(found))
    for line in _lines(found):
        console.print(line)
    if as_json:
        print(json.dumps(dataclasses.asdict(found), ensure_ascii=False))
    return EXIT_DONE


def _table(found: Status) -> Table:
    columns = ("labelled", "quarantined", "skipped", "pending")
    table = Table(title=f"{found.num_images} images", title_justify="left")
    table.add_column("recipe")
    for column in columns:
        table.add_column(column, justify="right")
    for recipe, counts in found.recipes.items():
        table.add_row(recipe, *(str(counts[column]) for column in columns))
    return table


def _lines(found: Status) -> list[str]:
    lines = []
    if deaths := sentence(found.label_actor_deaths):
        lines.append(f"in run {found.run['number']}, {deaths}")
    if found.quarantined_by_kind:
        kinds = ", ".join(f"{count} {kind}" for kind, count in found.quarantined_by_kind.items())
        lines.append(f"in quarantine: {kinds} (labelmill retry tries them again)")
    if found.dataset is None:
        return [*lines, "dataset: not written yet"]
    rows = ", ".join(f"{table} {count}" for table, count in found.dataset["num_rows"].items())
    return [
        *lines,
        f"dataset: {found.dataset['num_images']} images, written {found.dataset['finished_at']}; rows: {rows}",
    ]
