"""A run's summary -> the table that ends a run on the terminal."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from pipeline.worker_deaths import sentence
from schemas.tables import PRESENT


def print_summary(summary: Mapping[str, Any]) -> None:
    """What became of every image, per recipe, why some are in quarantine, how fast it went and where it is."""
    console = Console(soft_wrap=True, highlight=False, markup=False)
    table = Table(title=f"{summary['name']}: {summary['num_images']} images", title_justify="left")
    for column in ("recipe", "labelled", "quarantined", "skipped"):
        table.add_column(column, justify="left" if column == "recipe" else "right")
    for name, counts in summary["recipes"].items():
        table.add_row(name, *(str(counts[outcome]) for outcome in ("labelled", "quarantined", "skipped")))
    console.print(table)
    for line in _lines(summary):
        console.print(line)


def _lines(summary: Mapping[str, Any]) -> list[str]:
    this_run, lines = summary["this_run"], []
    if summary["quarantined_by_kind"]:
        kinds = ", ".join(f"{count} {kind}" for kind, count in summary["quarantined_by_kind"].items())
        lines.append(
            f"quarantined: {summary['num_quarantined_images']} images ({summary['quarantined_fraction']:.1%}): {kinds}"
        )
    if summary["num_ignored_files"]:
        lines.append(f"ignored: {summary['num_ignored_files']} files of the source that are no images")
    if this_run["num_images"]:
        lines.append(
            f"this run: {this_run['num_images']} images, {this_run['num_labels']} labels, "
            f"{this_run['images_per_s']:.2f} images/s, {this_run['labels_per_s']:.2f} labels/s"
        )
        occupied = "" if this_run["occupancy"] is None else f"; engines {this_run['occupancy']:.0%} occupied"
        lines.append(
            f"tokens: {this_run['num_output_tokens']:,} written ({this_run['output_tokens_per_s']:,.1f}/s), "
            f"{this_run['num_prompt_tokens']:,} of prompts ({this_run['prompt_tokens_per_s']:,.1f}/s){occupied}"
        )
    else:
        lines.append("this run: nothing was left to label")
    if deaths := sentence(this_run["label_actor_deaths"]):
        lines.append(f"{deaths}; others took their place")
    if lost := {state: count for state, count in summary["source_states"].items() if state != PRESENT}:
        states = ", ".join(f"{count} {state}" for state, count in sorted(lost.items()))
        lines.append(f"no longer in the source as labelled: {states} (column source_state)")
    rows = ", ".join(f"{table} {rows}" for table, rows in summary["num_rows"].items())
    return [*lines, f"rows: {rows}", f"dataset: {summary['dataset']}"]
