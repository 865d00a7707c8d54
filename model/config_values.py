"""Values of foreign JSON files -> fields of ours, or a ValueError that names file, key and value.

Knows no configuration.
"""

import json
import sys
from collections.abc import Mapping
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any, get_args


def section_of(raw: Mapping[str, Any], key: str, where: str, prefix: str = "") -> Mapping[str, Any]:
    """An object of the file; empty where it is absent or null."""
    section = raw.get(key)
    require(section is None or isinstance(section, Mapping), where, prefix + key, section, "an object")
    return section or {}


def pick(cls: type, raw: Mapping[str, Any], where: str, section: str = "", **ready: object) -> Any:
    """Reads the fields of `cls` that are not `ready`.

    null stands for the default where the field itself cannot be None: published files hold it for keys they do not use.
    """
    values = dict(ready)
    for field in fields(cls):
        if field.name in ready:
            continue
        accepted = get_args(field.type) or (field.type,)
        value, key = raw.get(field.name), f"{section}.{field.name}".lstrip(".")
        if field.name not in raw or (value is None and type(None) not in accepted):
            require(field.default is not MISSING, where, key, None, "it set")
            continue
        wanted = " or ".join(_KIND_NAMES.get(kind, kind.__name__) for kind in accepted)
        require(_fits(value, accepted), where, key, value, f"a value of type {wanted}")
        values[field.name] = value
    return cls(**values)


_KIND_NAMES = {type(None): "null", float: "finite float"}


def _fits(value: object, accepted: tuple[Any, ...]) -> bool:
    if isinstance(value, bool):  # which is an int to Python
        return bool in accepted
    if isinstance(value, int | float) and float in accepted:
        return abs(value) < sys.float_info.max  # which neither infinity nor nan is
    return isinstance(value, accepted)


def read_json(path: Path) -> dict[str, Any]:
    try:
        raw = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, IsADirectoryError):
        raise ValueError(f"{path} is missing: a checkpoint folder in the Hugging Face layout has one") from None
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not JSON ({error}): the download may be incomplete") from None
    if not isinstance(raw, dict):
        raise ValueError(f"{path} holds {type(raw).__name__}, not an object")
    return raw


def require(ok: bool, where: str, key: str, value: object, wanted: str) -> None:
    if not ok:
        shown = repr(value)
        shown = shown if len(shown) <= 200 else f"{shown[:200]}..."
        raise ValueError(f"{where}: {key} is {shown}, but this model needs {wanted}")
