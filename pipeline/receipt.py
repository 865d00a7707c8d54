"""Committed rows -> the receipt of their block, which leaves the pipeline; and back, for whoever adds receipts up.

What has keys of its own (recipes, kinds of errors, sums of an engine) travels as JSON: columns of a Ray dataset must be
the same in every block.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from schemas.rows import ImageRow

COUNTS = ("num_images", "num_quarantined_images", "num_labels", "num_prompt_tokens", "num_output_tokens")
_BY_KEY = ("labels_by_recipe", "quarantined_by_kind", "engine")


def receipt_of(rows: Sequence[ImageRow], engine: Iterable[str]) -> dict[str, list[Any]]:
    """One row of `COUNTS`, labels by recipe, quarantined images by kind (one that failed in two ways counts in both),
    and the engine's work.

    Args:
        engine: of each row what `pipeline.engine_work` says in JSON, the same for all rows of one block.
    """
    labels = [label for row in rows for label in row.labels]
    return {
        "num_images": [len(rows)],
        "num_quarantined_images": [sum(bool(_kinds(row)) for row in rows)],
        "num_labels": [len(labels)],
        "num_prompt_tokens": [sum(label.num_prompt_tokens for label in labels)],
        "num_output_tokens": [sum(label.num_output_tokens for label in labels)],
        "labels_by_recipe": [json.dumps(Counter(label.recipe for label in labels))],
        "quarantined_by_kind": [json.dumps(Counter(kind for row in rows for kind in _kinds(row)))],
        "engine": [next(iter(map(str, engine)), "{}")],
    }


def read_receipt(receipt: Mapping[str, Any]) -> dict[str, Any]:
    """A row of `receipt_of` with its JSON read."""
    return {name: json.loads(value) if name in _BY_KEY else value for name, value in receipt.items()}


def _kinds(row: ImageRow) -> set[str]:
    errors = [row.error] if row.error is not None else [error for _, error in row.recipe_errors]
    return {str(error.kind) for error in errors}
