"""An answer -> what it quotes, and what it says itself."""

import re

_PAIRS = (r"(?<!\w)\"([^\"{0}]{{1,300}})\"(?!\w)", "“([^“”{0}]{{1,300}})”", "„([^„“”{0}]{{1,300}})[“”]",
          "«([^«»{0}]{{1,300}})»", "「([^「」{0}]{{1,300}})」", "『([^『』{0}]{{1,300}})』")  # fmt: skip
_ON_ONE_LINE = re.compile("|".join(pair.format(r"\n") for pair in _PAIRS))
_ON_ANY_LINES = re.compile("|".join(pair.format("") for pair in _PAIRS))
_NOT_CLOSED = re.compile(r"(?:(?<!\w)\"(?=\w)|[“„«「『])[^\"“”„«»「」『』]*\Z")


def quotations_of(text: str) -> list[str]:
    """What stands between quotation marks on one line."""
    return [next(filter(None, found.groups()), "") for found in _ON_ONE_LINE.finditer(text)]


def without_quotations(text: str) -> str:
    """With an empty pair of quotation marks for each, also for one that the text is cut off in."""
    return _NOT_CLOSED.sub('""', _ON_ANY_LINES.sub('""', text))
