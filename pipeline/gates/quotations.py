"""An answer -> what it quotes, and what it says itself."""

import re

_QUOTED = re.compile(
    r"(?<!\w)\"([^\"\n]{1,300})\"(?!\w)|“([^“”\n]{1,300})”|„([^„“”\n]{1,300})[“”]|«([^«»\n]{1,300})»|「([^「」\n]{1,300})」|『([^『』\n]{1,300})』"
)
_NOT_CLOSED = re.compile(r"(?:(?<!\w)\"(?=\S)|[“„«「『])[^\"“”„«»「」『』\n]*$")


def quotations_of(text: str) -> list[str]:
    """What stands between quotation marks on one line."""
    return [next(filter(None, found.groups()), "") for found in _QUOTED.finditer(text)]


def without_quotations(text: str) -> str:
    """With an empty pair of quotation marks for each, also for one that the text is cut off in."""
    return _NOT_CLOSED.sub('""', _QUOTED.sub('""', text))
