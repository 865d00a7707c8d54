"""What a run says of itself -> one line, and a table of the same figures; for its own terminal and for others."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

PHASES = {
    "listing": "looking at the source, the checkpoint and the output",
    "starting": "starting Ray and loading the model",
    "labeling": "labeling",
    "stopping": "stopping: ending what is under way",
    "finalizing": "writing the dataset",
}


def line_of(progress: Mapping[str, Any]) -> str:
    """progress: the fields of `pipeline.progress.Progress`; {} before a run has said anything."""
    phase = progress.get("phase", "listing")
    if phase not in ("labeling", "stopping"):
        return PHASES[phase]
    return f"{PHASES[phase]}: " + ", ".join(filter(None, (_counts(progress), _speeds(progress), _left(progress))))


def table_of(progress: Mapping[str, Any]) -> Table:
    """Below the line: labels by recipe, quarantine by reason, and what the engines are doing."""
    table = Table.grid(padding=(0, 2))
    for name, text in _rows(progress):
        table.add_row(name, text)
    return table


def _rows(progress: Mapping[str, Any]) -> list[tuple[str, str]]:
    tokens = (
        f"{progress.get('num_output_tokens', 0):,} written ({progress.get('output_tokens_per_s', 0.0):,.1f}/s), "
        f"{progress.get('num_prompt_tokens', 0):,} of prompts ({progress.get('prompt_tokens_per_s', 0.0):,.1f}/s)"
    )
    rows = [
        ("labels", _listed(progress.get("labels_by_recipe", {}))),
        ("quarantined", _listed(progress.get("quarantined_by_kind", {}))),
        ("tokens", tokens),
        ("engines", _engines(progress)),
    ]
    return [(name, text) for name, text in rows if text]


def _counts(progress: Mapping[str, Any]) -> str:
    counts = f"{progress['num_images_done']}/{progress['num_images']} images, {progress['num_labels']} labels"
    kinds = _listed(progress["quarantined_by_kind"])
    return f"{counts}, {progress['num_quarantined_images']} quarantined ({kinds})" if kinds else counts


def _speeds(progress: Mapping[str, Any]) -> str:
    if not progress["images_per_s"]:
        return ""
    speeds = f"{progress['images_per_s']:.2f} images/s, {progress['output_tokens_per_s']:.1f} tokens/s"
    return f"{speeds}, {progress['occupancy']:.0%} occupied" if progress["occupancy"] is not None else speeds


def _left(progress: Mapping[str, Any]) -> str:
    if progress["num_pending_images"] is None:
        return ""
    eta = f", {duration(progress['eta_s'])} to go" if progress["eta_s"] else ""
    return f"{progress['num_pending_images']} pending{eta}"


def _engines(progress: Mapping[str, Any]) -> str:
    if progress.get("occupancy") is None:
        return ""
    return f"{progress['occupancy']:.0%} of their sequences, {progress['cache_use']:.0%} of their caches in use"


def _listed(counts: Mapping[str, int]) -> str:
    return ", ".join(f"{count:,} {name}" for name, count in counts.items())


def duration(seconds: float) -> str:
    minutes, hours = seconds / 60, seconds / 3600
    if hours >= 1:
        return f"{int(hours)} h {int(minutes) % 60} min"
    return f"{minutes:.0f} min" if minutes >= 2 else f"{seconds:.0f} s"
