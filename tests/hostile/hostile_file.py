"""One hostile file, and how it may end."""

from dataclasses import dataclass

from schemas.errors import ErrorKind

TILES = "tiles"
"""The end that is no error."""
REFUSED = frozenset({ErrorKind.UNREADABLE, ErrorKind.TRUNCATED, ErrorKind.DECODER_FAILED, ErrorKind.TOO_MANY_PIXELS})


@dataclass(frozen=True, kw_only=True)
class HostileFile:
    group: str
    name: str
    encoded: bytes
    allowed: frozenset[str]
    """The ends that are right: `TILES` and kinds of errors."""
    flag: str = ""
    """That the row must have where it ends as tiles."""
