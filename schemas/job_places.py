"""Parts of a job file as YAML gives them -> the same, with its relative places spelled for another folder.

Knows which keys name places, and looks at no store; whether values are right is not decided here.
"""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from schemas.job_problems import JobError
from schemas.job_yaml import override_parts

_ANY = "*"
_PLACES = (
    ("source",),
    ("source", "uri"),
    ("source", "image_root"),
    ("source", "image_roots", _ANY),
    ("checkpoint",),
    ("recipes", _ANY),
    ("recipes", _ANY, "name"),
    ("output",),
    ("output", "uri"),
)

Spell = Callable[[str], str]
"""A relative path -> how it is spelled from the working folder."""


def moved(value: Any, spell: Spell, at: tuple[str, ...] = ()) -> Any:
    """A copy of what stands at a path of a job file, by default of the whole."""
    if isinstance(value, str):
        return spell(value) if _is_place(at) and _is_relative_path(value, at[0], spell) else value
    if isinstance(value, Mapping):
        return {key: moved(part, spell, (*at, str(key))) for key, part in value.items()}
    if isinstance(value, list | tuple):
        return [moved(part, spell, (*at, str(place))) for place, part in enumerate(value)]
    return value


def moved_override(override: str, spell: Spell) -> str:
    """The same of `path=value`; what has not that form is left for whoever applies it to refuse."""
    try:
        path, value = override_parts(override)
    except JobError:
        return override
    spelled = moved(value, spell, tuple(path.split(".")))
    return override if spelled == value else f"{path}={json.dumps(spelled, ensure_ascii=False)}"


def _is_place(at: tuple[str, ...]) -> bool:
    return any(
        len(place) == len(at) and all(key in (_ANY, own) for key, own in zip(place, at, strict=True))
        for place in _PLACES
    )


def _is_relative_path(text: str, key: str, spell: Spell) -> bool:
    if not text or "://" in text or text.startswith(("/", "~")):
        return False
    if key == "recipes":
        return text.endswith((".yaml", ".yml"))  # others are built in
    if key == "checkpoint" and not text.startswith("."):
        is_hub_id = text.count("/") == 1
        return text != "nano" and (not is_hub_id or Path(spell(text)).is_dir())
    return True
