"""A URI with wildcards -> the folder to list and which names below it match.

It knows strings only. `*`, `?` and `[a-z]` stay within one path segment, `**` crosses them, and none of them
matches a name's leading dot, as in a shell.
"""

import re
from dataclasses import dataclass

_WILDCARD = re.compile(r"[*?\[]")
_TOKEN = re.compile(r"\*\*|\*|\?|\[[!^]?\]?[^\]/]*\]|.", re.DOTALL)
_REGEX_OF = {"**": ".*", "*": "[^/]*", "?": "[^/]"}
_FOLDERS = r"(?:(?!\.)[^/]+/)*"


@dataclass(frozen=True, kw_only=True)
class GlobPattern:
    """`regex` matches what follows `folder_uri + "/"`; every match starts with `starting_with`."""

    folder_uri: str
    starting_with: str
    regex: re.Pattern[str]


def has_wildcard(uri: str) -> bool:
    return _WILDCARD.search(uri) is not None


def glob_pattern(uri: str) -> GlobPattern:
    """Splits a URI that has a wildcard at the last `/` before the first one."""
    wildcard = _WILDCARD.search(uri)
    assert wildcard is not None, f"{uri} has no wildcard"
    folder, _, starting_with = uri[: wildcard.start()].rpartition("/")
    below = uri[len(folder) + 1 :]
    try:
        regex = re.compile(_regex(below))
    except re.error as error:
        raise ValueError(f"{uri}: {below!r} is not a valid pattern ({error}); check its brackets") from error
    return GlobPattern(folder_uri=folder or "/", starting_with=starting_with, regex=regex)


def _regex(pattern: str) -> str:
    *folders, name = pattern.split("/")
    parts = [_FOLDERS if folder == "**" else _segment(folder) + "/" for folder in folders]
    parts.append(_FOLDERS + _segment("*") if name == "**" else _segment(name))
    return "".join(parts) + r"\Z"


def _segment(segment: str) -> str:
    no_dot = r"(?!\.)" if segment[:1] in ("*", "?", "[") else ""
    return no_dot + _TOKEN.sub(lambda match: _token(match.group()), segment)


def _token(token: str) -> str:
    if token in _REGEX_OF:
        return _REGEX_OF[token]
    if len(token) == 1:
        return re.escape(token)
    negated = token[1] in "!^"
    members = re.sub(r"([\\\[\]&~|^])", r"\\\1", token[2:-1] if negated else token[1:-1])
    return f"[^/{members}]" if negated else f"[{members}]"
