"""A job file, or its text, and dotted overrides -> plain dicts and lists, with every mistake of form named.

Knows YAML and nothing of the fields of a job.
"""

import itertools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from schemas.job_problems import JobError, JobProblem, did_you_mean, shown

MAX_VALUES = 100_000
"""Of one document, those that aliases repeat counted each time: ten lines of aliases can spell out billions."""

_FORM = re.compile(r"[^\s=.]+(\.[^\s=.]+)*")


def read_text(path_or_text: str | Path, *, what: str = "job file") -> str:
    """The text of a file: a `Path` or a string of one line names it; with line breaks it is the text.

    Raises:
        JobError: it cannot be read.
    """
    if isinstance(path_or_text, str) and (not path_or_text or "\n" in path_or_text):
        return path_or_text
    path = Path(path_or_text)
    try:
        return path.read_bytes().decode("utf-8-sig")
    except FileNotFoundError:
        reason = f"there is no such {what}"
    except IsADirectoryError:
        reason = f"is a folder: name the {what} in it"
    except UnicodeDecodeError as error:
        reason = f"is not UTF-8 text (byte {error.start}): save it as UTF-8"
    except OSError as error:
        reason = f"cannot be read: {error.strerror or error}"
    raise JobError([JobProblem(path="", message=f"{path}: {reason}")])


def parse_mapping(text: str, *, what: str = "job file") -> tuple[dict[Any, Any], list[JobProblem]]:
    """The document, and the keys it gives twice (the last one counts).

    Raises:
        JobError: not YAML, empty, or not a mapping.
    """
    try:
        document, problems = _parse(text)
    except _YAML_ERRORS as error:
        raise JobError([JobProblem(path="", message=f"not valid YAML: {_one_line(error, text)}")]) from None
    if document is None:
        raise JobError([JobProblem(path="", message=f"the {what} is empty")])
    if not isinstance(document, dict):
        message = f"the {what} must be a mapping (name: ..., source: ...), got {shown(document)}"
        raise JobError([JobProblem(path="", message=message)])
    return document, problems


def apply_override(document: dict[Any, Any], override: str) -> dict[Any, Any]:
    """A copy of the document with `a.b=value` set; the value is YAML, list entries go by number or name.

    Raises:
        JobError: no such form, or a path that leads nowhere.
    """
    path, value = override_parts(override)
    try:
        changed: dict[Any, Any] = _assigned(document, path.split("."), value)
    except _NoSuchPlaceError as error:
        raise JobError([JobProblem(path=path, message=str(error))]) from None
    return changed


def override_parts(override: str) -> tuple[str, Any]:
    """The path and the value of `a.b=value`.

    Raises:
        JobError: no such form, or a value that is no YAML.
    """
    path, equals, text = override.partition("=")
    path = path.strip()
    if not equals or not _FORM.fullmatch(path):
        message = "an override has the form path=value, e.g. engine.dtype=float32 or recipes.caption.seed=1"
        raise JobError([JobProblem(path=path, message=message)])
    return path, _override_value(path, text)


class _NoSuchPlaceError(Exception):
    pass


class _TooMuchError(yaml.YAMLError):
    pass


# PyYAML lets ValueError out for what looks like a date or a number and is none, e.g. 2024-13-45.
_YAML_ERRORS = (yaml.YAMLError, RecursionError, OverflowError, UnicodeError, ValueError)


def _override_value(path: str, text: str) -> Any:
    try:
        value, problems = _parse(text)
    except _YAML_ERRORS as error:
        message = f"the value is not valid YAML: {_one_line(error, text)}"
        raise JobError([JobProblem(path=path, message=message)]) from None
    if problems:
        raise JobError([JobProblem(path=f"{path}.{found.path}", message=found.message) for found in problems])
    return value


def _assigned(container: Any, parts: list[str], value: Any) -> Any:
    """Copies along the path only: YAML aliases share containers, and the other places keep their value."""
    if not parts:
        return value
    head, rest = parts[0], parts[1:]
    if container is None:
        container = {}
    if isinstance(container, dict):
        return {**container, head: _assigned(container.get(head), rest, value)}
    if isinstance(container, list):
        index = _index(container, head)
        return [*container[:index], _assigned(container[index], rest, value), *container[index + 1 :]]
    raise _NoSuchPlaceError(f"{head!r} cannot be set inside {shown(container)}, which is a single value")


def _index(entries: list[Any], part: str) -> int:
    if part.isdecimal():
        if int(part) < len(entries):
            return int(part)
        raise _NoSuchPlaceError(f"there is no entry {part}: the list has {len(entries)}, counted from 0")
    named = [entry if isinstance(entry, dict) else {} for entry in entries]
    names = [str(entry.get("id") or entry.get("name", "")) for entry in named]
    if part in names:
        return names.index(part)
    given = ", ".join(filter(None, names)) or "none"
    raise _NoSuchPlaceError(f"no entry is called {part!r}{did_you_mean(part, names) or ';'} names in the list: {given}")


def _parse(text: str) -> tuple[Any, list[JobProblem]]:
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None, []
        _check_size(node)
        # In this order: constructing writes the entries of merge keys (<<) into the nodes.
        problems = list(_duplicates(node, (), set()))
        return loader.construct_document(node), problems
    finally:
        loader.dispose()


def _check_size(root: yaml.Node) -> None:
    """Before anything is done once for each value, as reading merge keys (<<) is."""
    sizes: dict[int, int] = {}

    def size_of(node: yaml.Node) -> int:
        if id(node) not in sizes:
            sizes[id(node)] = MAX_VALUES + 1  # what an alias inside of the node finds: a value without end
            children = itertools.chain.from_iterable(node.value) if isinstance(node, yaml.MappingNode) else node.value
            parts = [] if isinstance(node, yaml.ScalarNode) else children
            sizes[id(node)] = 1 + sum(size_of(part) for part in parts)
        return sizes[id(node)]

    if size_of(root) > MAX_VALUES:
        raise _TooMuchError(f"more than {MAX_VALUES:,} values: an alias (*) repeats too much, or itself")


def _duplicates(node: yaml.Node, path: tuple[str, ...], seen: set[int]) -> Iterator[JobProblem]:
    if id(node) in seen:
        return
    seen.add(id(node))
    if isinstance(node, yaml.SequenceNode):
        for index, entry in enumerate(node.value):
            yield from _duplicates(entry, (*path, str(index)), seen)
    if isinstance(node, yaml.MappingNode):
        first_lines: dict[str, int] = {}
        for key, entry in node.value:
            here, line = (*path, str(key.value)), key.start_mark.line + 1
            if here[-1] in first_lines and key.tag != "tag:yaml.org,2002:merge":
                message = f"is given twice, in line {first_lines[here[-1]]} and in line {line}: keep one"
                yield JobProblem(path=".".join(here), message=message)
            first_lines.setdefault(here[-1], line)
            yield from _duplicates(entry, here, seen)


def _one_line(error: Exception, text: str) -> str:
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        return where + " ".join(filter(None, (error.context, error.problem)))
    if isinstance(error, yaml.reader.ReaderError):
        line = text.count("\n", 0, error.position) + 1
        return f"line {line}: a control character (#x{error.character:04x})"
    return "nested too deeply" if isinstance(error, RecursionError) else " ".join(str(error).split())
