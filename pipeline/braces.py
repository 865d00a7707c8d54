"""A URI with braces, as WebDataset users write them -> the names that it stands for.

`{000000..000099}` counts, with the zeros of its ends; `{a,b}` lists. All other braces are letters.
"""

import itertools
import re

MAX_NAMES = 1_000_000
_BRACES = re.compile(r"\{(?:(-?\d+)\.\.(-?\d+)(?:\.\.(-?\d+))?|([^{}]*,[^{}]*))\}")


def has_braces(uri: str) -> bool:
    return _BRACES.search(uri) is not None


def expand_braces(uri: str) -> list[str]:
    """Every name once, in the order of code points, which is that of a listing.

    Raises:
        ValueError: a step of 0, or more than `MAX_NAMES` names.
    """
    parts: list[list[str]] = []
    num_names, last_end = 1, 0
    for found in _BRACES.finditer(uri):
        choices = found.group(4).split(",") if found.group(4) is not None else _counted(uri, found)
        parts += [[uri[last_end : found.start()]], choices]
        num_names, last_end = num_names * len(choices), found.end()
        if num_names > MAX_NAMES:
            raise ValueError(f"{uri}: stands for more than {MAX_NAMES} files; name a folder, or use wildcards")
    parts.append([uri[last_end:]])
    return sorted(set(map("".join, itertools.product(*parts))))


def folder_before_braces(uri: str) -> str:
    """The folder that all the names lie in."""
    found = _BRACES.search(uri)
    assert found is not None, f"{uri} has no braces"
    return uri[: found.start()].rpartition("/")[0] or "/"


def _counted(uri: str, found: re.Match[str]) -> list[str]:
    first, last, step = found.group(1), found.group(2), abs(int(found.group(3) or 1))
    if step == 0:
        raise ValueError(f"{uri}: {found.group()} counts in steps of 0")
    start, end = int(first), int(last)
    if abs(end - start) // step >= MAX_NAMES:
        raise ValueError(f"{uri}: {found.group()} stands for more than {MAX_NAMES} files; name a folder instead")
    is_padded = any(len(text.lstrip("-")) > 1 and text.lstrip("-")[0] == "0" for text in (first, last))
    width = max(len(first), len(last)) if is_padded else 0
    counted = range(start, end + 1, step) if start <= end else range(start, end - 1, -step)
    return [f"{number:0{width}d}" for number in counted]
