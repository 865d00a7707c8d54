"""A run's summary -> the dataset card, README.md in the form that `datasets` and the Hugging Face hub read."""

from collections.abc import Mapping
from typing import Any

import yaml


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

Labels of {summary["num_images"]} images from `{summary["source"]}`, made by labelmill with the checkpoint
`{summary["checkpoint"]}`. Every image is accounted for exactly once per recipe:

| recipe | labelled | quarantined | skipped |
|---|---|---|---|
{outcomes}

## Tables

{rows}

Images that could not be labelled are in `quarantine`, each with its reason. Boxes are in pixels of the image after its
EXIF orientation was applied. The job, the manifest of all inputs and the run's accounts are under `_run/`.
"""
