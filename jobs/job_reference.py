"""The job's schema -> docs/job-file.md, which a test compares: `python -m jobs.job_reference > docs/job-file.md`."""

import types
from collections.abc import Iterator
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from schemas.job import JobSpec

_HEAD = """# The job file

Generated from the schema by `python -m jobs.job_reference`. A job file is YAML; it takes the keys below and no others.
`labelmill run JOB.yaml --set a.b=value` overrides one of them, `--set recipes.caption.seed=1` one of a recipe.
Relative paths in it (`source`, its `image_root` and `image_roots`, `checkpoint`, `output`, recipe files) start from the
job file's own folder, wherever the command is run; those given with `--set` from the current directory.
"""

_NOTES = {
    "source": "A plain text stands for `{uri: <text>}`. What each format means is in [sources.md](sources.md).",
    "recipes": (
        "A list of entries; a plain name stands for `{name: <name>}`. Which keys a recipe takes is for its file to say "
        "([recipes.md](recipes.md)); `labelmill recipes` shows it."
    ),
}


def reference() -> str:
    """The document, as Markdown."""
    lines = [_HEAD, *_section("The job", JobSpec)]
    for key, field in JobSpec.model_fields.items():
        for model in _models(field.annotation):
            lines += _section(f"`{key}`", model, _NOTES.get(key, ""))
    return "\n".join(lines)


def _models(kind: Any) -> list[type[BaseModel]]:
    """The parts of a job that a value of this type may be."""
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return [kind]
    return [model for argument in get_args(kind) for model in _models(argument)]


def _section(title: str, model: type[BaseModel], note: str = "") -> Iterator[str]:
    yield f"## {title}\n"
    if note:
        yield f"{note}\n"
    yield "| key | value | default | meaning |"
    yield "|---|---|---|---|"
    for key, field in model.model_fields.items():
        meaning = " ".join((field.description or "").split()).replace("|", "\\|")
        yield f"| `{key}` | {_type_name(field.annotation, field.metadata)} | {_default(field)} | {meaning} |"
    yield ""


def _default(field: FieldInfo) -> str:
    if field.is_required():
        return "required"
    value = field.get_default(call_default_factory=True)
    if isinstance(value, BaseModel):
        return "see below"
    if value is None:
        return "-"
    if isinstance(value, tuple):
        return f"`[{', '.join(map(str, value))}]`"
    return f"`{str(value).lower() if isinstance(value, bool) else value}`"


def _type_name(kind: Any, metadata: Any = ()) -> str:
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Annotated:
        return _type_name(arguments[0], arguments[1:])
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in arguments)
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(one) for one in arguments if one is not type(None))
    if origin is tuple:
        return f"list: {_type_name(arguments[0])}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return "see below"
    return {str: "text", int: "whole number", float: "number", bool: "`true` or `false`"}[kind] + _bounds(metadata)


def _bounds(metadata: Any) -> str:
    texts = [
        f"{word} {bound}"
        for item in metadata
        for word, name in (("at least", "ge"), ("more than", "gt"), ("at most", "le"), ("less than", "lt"))
        if (bound := getattr(item, name, None)) is not None
    ]
    return f", {', '.join(texts)}" if texts else ""


if __name__ == "__main__":
    print(reference(), end="")
