"""What is wrong with a job file -> one `JobProblem` for each mistake, in the words of the file.

Does not know the fields of a job: whatever model pydantic checked tells it which keys exist.
"""

import difflib
import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

CREDENTIALS = (
    "credentials and endpoints come from the usual AWS environment (AWS_PROFILE, AWS_ACCESS_KEY_ID, "
    "AWS_ENDPOINT_URL, ...), never from the job file: remove it"
)

_CREDENTIAL_KEY = re.compile(
    r"(^|_)(access_?key(_id)?|api_?key|secret(_?access)?(_?key)?|passw(or)?d|credentials?|endpoint(_url)?)$"
    r"|^((aws|hf|session|access|auth|bearer|security)_)*token$|^(aws_)?(profile|region)(_name)?$",
    re.IGNORECASE,
)


@dataclass(frozen=True, kw_only=True)
class JobProblem:
    """One mistake. `path` is dotted as in the file (`recipes.1.queries`), "" for the file as a whole."""

    path: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}: {self.message}" if self.path else self.message


class JobError(ValueError):
    """Every problem of a job file at once; as text, one line for each."""

    def __init__(self, problems: Sequence[JobProblem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(str(problem) for problem in self.problems)


def refuse(message: str, *at: str | int) -> PydanticCustomError:
    """What a validator raises; `at` leads from the validated value down to the culprit."""
    return PydanticCustomError("job", "{message}", {"message": message, "at": list(at)})


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """`; did you mean 'x'?`, or "" where nothing comes close."""
    close = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {close[0]!r}?" if close else ""


def shown(value: object) -> str:
    """A value as an error may repeat it: containers only by their kind, since they may hold secrets."""
    if isinstance(value, Mapping):
        return "a mapping"
    if isinstance(value, list | tuple):
        return "a list"
    return repr(value) if isinstance(value, str | bool) else str(value)


def problems_of(error: ValidationError, root: type[BaseModel]) -> list[JobProblem]:
    """Pydantic's findings on `root`, one problem each, without its type names."""
    return [_problem(details, root) for details in error.errors(include_url=False)]


def _problem(details: ErrorDetails, root: type[BaseModel]) -> JobProblem:
    path, models = _resolve(details["loc"], root)
    path += [str(part) for part in details.get("ctx", {}).get("at", ())]
    if details["type"] in ("extra_forbidden", "invalid_key"):
        _, models = _resolve(details["loc"][:-1], root)
    return JobProblem(path=".".join(path), message=_message(details, models))


def _resolve(loc: Sequence[int | str], root: type[BaseModel]) -> tuple[list[str], list[type[BaseModel]]]:
    """The dotted path of a location, and the models that may stand there."""
    path: list[str] = []
    models = [root]
    for part in loc:
        path.append(str(part))
        if isinstance(part, str):
            field = models[0].model_fields.get(part) if models else None
            models = _models_in(field.annotation) if field else []
    return path, models


def _models_in(annotation: Any) -> list[type[BaseModel]]:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in _models_in(part)]


def _message(details: ErrorDetails, models: Sequence[type[BaseModel]]) -> str:
    kind, value, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "job":
        return str(context["message"])
    if kind in ("extra_forbidden", "invalid_key"):
        return _unknown_key(str(details["loc"][-1]), models)
    if kind == "missing":
        return "is missing"
    if isinstance(value, Mapping) and any(_CREDENTIAL_KEY.search(str(key)) for key in value):
        return CREDENTIALS
    if value is None:
        return "is empty: give it a value, or leave it out"
    if kind in _WANTED:
        return f"must be {_WANTED[kind](context, models)}, got {shown(value)}{_hint(kind, value, context)}"
    return details["msg"]


_WANTED: dict[str, Callable[[Mapping[str, Any], Sequence[type[BaseModel]]], str]] = {
    "string_type": lambda context, models: "text",
    "bool_type": lambda context, models: "true or false",
    "bool_parsing": lambda context, models: "true or false",
    "tuple_type": lambda context, models: "a list",
    "int_type": lambda context, models: "a whole number",
    "int_parsing": lambda context, models: "a whole number",
    "int_parsing_size": lambda context, models: "a whole number",
    "int_from_float": lambda context, models: "a whole number",
    "float_type": lambda context, models: "a number",
    "float_parsing": lambda context, models: "a number",
    "finite_number": lambda context, models: "a finite number",
    "greater_than_equal": lambda context, models: f"at least {context['ge']}",
    "greater_than": lambda context, models: f"greater than {context['gt']}",
    "less_than_equal": lambda context, models: f"at most {context['le']}",
    "literal_error": lambda context, models: f"{context['expected']}",
    "model_type": lambda context, models: f"a mapping with the keys {_keys(models)}",
}


def _hint(kind: str, value: object, context: Mapping[str, Any]) -> str:
    if kind == "literal_error":
        return did_you_mean(str(value), re.findall(r"'([^']*)'", str(context["expected"])))
    if kind == "string_type" and not isinstance(value, Mapping | list):
        return "; put it in quotes"
    return ""


def _unknown_key(key: str, models: Sequence[type[BaseModel]]) -> str:
    if _CREDENTIAL_KEY.search(key):
        return CREDENTIALS
    known = [name for model in models for name in model.model_fields]
    return f"unknown key{did_you_mean(key, known) or ';'} known keys: {', '.join(known)}"


def _keys(models: Sequence[type[BaseModel]]) -> str:
    return ", ".join(name for model in models for name in model.model_fields)
