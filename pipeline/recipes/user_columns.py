"""What a user's own function makes of an answer -> columns of the label's table, checked."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from pipeline.recipes.parsers import Answered, Parsed
from schemas.tables import OWN


def user_view(answered: Answered) -> dict[str, Any]:
    """What the function is told beside the answer's text: plain values only."""
    return {
        **answered.ask.values,
        "style": answered.style_name,
        "original_answer": answered.ask.original_answer,
        "width_px": answered.row.width_px,
        "height_px": answered.row.height_px,
        "image_uri": answered.row.image_uri,
    }


def with_user_columns(parsed: Parsed, table: str, columns: object) -> Parsed:
    """The parsed answer with the function's columns instead of its own, and its `flags` added to those of the form.

    Raises:
        ValueError: it gave something else than a mapping of the table's columns.
    """
    known = [field.name for field in OWN[table]]
    if not isinstance(columns, Mapping):
        raise ValueError(f"the recipe's function gave {type(columns).__name__}: it must give a mapping of columns")
    own = dict(columns)
    flags = tuple(str(flag) for flag in own.pop("flags", ()))
    if strange := [str(name) for name in own if name not in known]:
        raise ValueError(
            f"the recipe's function gave {', '.join(strange)}, but the table {table} has {', '.join(known)}"
        )
    return dataclasses.replace(parsed, values={**parsed.values, **own}, flags=(*parsed.flags, *flags))
