"""A run's summary -> the dataset card, README.md in the form that `datasets` and the Hugging Face hub read."""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from schemas.tables import PRESENT


def dataset_card(summary: Mapping[str, Any]) -> str:
    """Markdown with YAML front matter: one config per table that has rows, so that each loads by its name."""
    tables = {table: rows for table, rows in summary["num_rows"].items() if rows}
    front = {
        "configs": [
            {"config_name": table, "data_files": [{"split": "train", "path": f"{table}/part-*.parquet"}]}
            for table in tables
        ]
    }
    outcomes = "\n".join(
        f"| {name} | {counts['labelled']} | {counts['quarantined']} | {counts['skipped']} |"
        for name, counts in summary["recipes"].items()
    )
    rows = "\n".join(f"- `{table}/part-*.parquet`: {count} rows" for table, count in summary["num_rows"].items())
    return f"""---
{yaml.safe_dump(front, sort_keys=False).strip()}
---

# {summary["name"]}

Labels of {summary["num_images"]} images from `{summary["source"]}`, made by labelmill {summary["labelmill_version"]}
with the checkpoint `{summary["checkpoint"]}`. Every image is accounted for exactly once per recipe:

| recipe | labelled | quarantined | skipped |
|---|---|---|---|
{outcomes}
{"".join(_quarantine(summary["quarantined_by_kind"]))}{"".join(_lost(summary["source_states"]))}
## Tables

{rows}

Images that could not be labelled are in `quarantine`, each with its reason. Boxes are in pixels of the image after its
EXIF orientation was applied. The job, the recipes, the manifest of all inputs and the run's accounts are under `_run/`.

{"".join(_table(table, facts) for table, facts in summary["tables"].items() if tables.get(table))}
## Recipes

{"".join(_recipe(name, described, summary) for name, described in summary["made_by"].items())}"""


def _quarantine(by_kind: Mapping[str, int]) -> Iterator[str]:
    if by_kind:
        yield "\n| reason of the quarantine | images |\n|---|---|\n"
    for kind, count in by_kind.items():
        yield f"| {kind} | {count} |\n"


def _lost(source_states: Mapping[str, int]) -> Iterator[str]:
    lost = {state: count for state, count in sorted(source_states.items()) if state != PRESENT}
    if lost:
        yield "\n| the source's images, since they were labelled | images |\n|---|---|\n"
    for state, count in lost.items():
        yield f"| {state} (`source_state` in the tables) | {count} |\n"


def _table(table: str, facts: Mapping[str, Any]) -> str:
    unit = {"boxes": "boxes", "score": "score"}.get(facts["measured"], f"characters of `{facts['measured']}`")
    edges = list(facts["lengths"])
    lengths = "\n".join(f"| {edge} or more | {facts['lengths'][edge]} |" for edge in edges)
    flags = "\n".join(f"| {flag} | {count} |" for flag, count in facts["flags"].items()) or "| none | |"
    attempts = ", ".join(f"{count} at attempt {attempt}" for attempt, count in facts["attempts"].items())
    samples = "\n".join(_fenced(_yaml(sample), "yaml") for sample in facts["samples"])
    return f"""### {table}

Accepted: {attempts}.

| flag | rows |
|---|---|
{flags}

| {unit} | rows |
|---|---|
{lengths}

Samples:

{samples}

"""


def _recipe(name: str, described: Mapping[str, Any], summary: Mapping[str, Any]) -> str:
    texts = summary["most_repeated"].get(name, ())
    lines = "".join(f"- {one['count']} times: {_in_line(one['text'])}\n" for one in texts)
    repeated = f"Most repeated texts:\n\n{lines}\n" if texts else ""
    return f"### {name}\n\n{described['about']}\n\n{_fenced(_yaml(described), 'yaml')}\n\n{repeated}"


def _yaml(record: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(record), sort_keys=False, allow_unicode=True, width=110).strip()


def _fenced(text: str, language: str) -> str:
    """A fence longer than any in the text: what a model wrote must not end it."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}{language}\n{text}\n{fence}"


def _in_line(text: str) -> str:
    return "`` " + re.sub("`+", "'", " ".join(text.split())) + " ``"
