"""The series that PromQL expressions of the repository read."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from tests.command import REPOSITORY

PROMETHEUS = REPOSITORY / "infra" / "prometheus"
DASHBOARD = REPOSITORY / "infra" / "grafana" / "labelmill.json"

_TOKEN = re.compile(
    r"""(?P<string>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')
      | (?P<range>\[[^\]]*\])
      | (?P<name>[A-Za-z_:][\w:]*)
      | (?P<number>\d[\w.]*)
      | (?P<other>\S)""",
    re.VERBOSE,
)
_OPERATORS = {"and", "or", "unless", "bool", "offset", "inf", "nan"}
_BEFORE_LABELS = {"by", "without", "on", "ignoring", "group_left", "group_right"}


@dataclass(frozen=True)
class Read:
    """A series as an expression reads it, with the labels that its selector names."""

    name: str
    labels: frozenset[str]


def series_of(expression: str) -> set[Read]:
    """Functions, operators, and the labels of groupings are no series."""
    tokens = [(match.lastgroup, match.group()) for match in _TOKEN.finditer(expression)]
    found, place = set(), 0
    while place < len(tokens):
        kind, text = tokens[place]
        following = tokens[place + 1][1] if place + 1 < len(tokens) else ""
        place += 1
        if kind != "name" or text in _OPERATORS:
            continue
        if text in _BEFORE_LABELS:
            place = _after(tokens, place, ")") if following == "(" else place
        elif following == "{":
            end = _after(tokens, place, "}")
            found.add(Read(text, frozenset(word for kind, word in tokens[place:end] if kind == "name")))
            place = end
        elif following not in ("(", "by", "without"):
            found.add(Read(text, frozenset()))
    return found


def alerts() -> list[dict[str, Any]]:
    groups = yaml.safe_load((PROMETHEUS / "alerts.yml").read_text())["groups"]
    return [rule for group in groups for rule in group["rules"]]


def panels() -> list[dict[str, Any]]:
    """Those that show something; rows only hold them together."""
    return [panel for panel in json.loads(DASHBOARD.read_text())["panels"] if panel["type"] != "row"]


def expressions() -> Iterator[str]:
    """Of all alerts and panels; Grafana's own variables stand for what they may be."""
    for rule in alerts():
        yield rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            text = target["expr"].replace("$__rate_interval", "1m").replace("$__range", "1h")
            yield text.replace("$job", ".*")


def _after(tokens: list[tuple[str | None, str]], place: int, closing: str) -> int:
    while tokens[place][1] != closing:
        place += 1
    return place + 1
