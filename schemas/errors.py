"""What can go wrong with one image, as a closed list: each kind has a stage and is permanent or transient.

A row that fails is data, not an exception: it carries a `RowError` to the quarantine table.
"""

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    FETCH = "fetch"
    DECODE = "decode"
    TILE = "tile"
    LABEL = "label"


class ErrorKind(StrEnum):
    """Why a row was quarantined. `permanent` kinds fail again on the same bytes; the others may succeed on a rerun."""

    stage: Stage
    permanent: bool

    def __new__(cls, value: str, stage: Stage, permanent: bool) -> "ErrorKind":
        member = str.__new__(cls, value)
        member._value_ = value
        member.stage = stage
        member.permanent = permanent
        return member

    MISSING = "missing", Stage.FETCH, True
    FORBIDDEN = "forbidden", Stage.FETCH, True
    UNSUPPORTED_URI = "unsupported_uri", Stage.FETCH, True
    CHANGED = "changed", Stage.FETCH, True
    STORE_UNAVAILABLE = "store_unavailable", Stage.FETCH, False
    EMPTY = "empty", Stage.FETCH, True
    TOO_MANY_BYTES = "too_many_bytes", Stage.FETCH, True
    TOO_MANY_PIXELS = "too_many_pixels", Stage.DECODE, True
    UNREADABLE = "unreadable", Stage.DECODE, True
    TRUNCATED = "truncated", Stage.DECODE, True
    DECODER_FAILED = "decoder_failed", Stage.DECODE, True
    TILING_FAILED = "tiling_failed", Stage.TILE, True
    CONTEXT_TOO_LONG = "context_too_long", Stage.LABEL, True
    ENGINE_ERROR = "engine_error", Stage.LABEL, False


@dataclass(frozen=True, kw_only=True)
class RowError:
    """One failure of one row. `message` is for a person; `kind` is what programs and retries look at."""

    kind: ErrorKind
    message: str

    @property
    def stage(self) -> Stage:
        return self.kind.stage


class RowFailure(Exception):  # noqa: N818 - it is how one function tells its stage, and never leaves the stage
    """Raised inside a stage for one row, and turned into that row's `RowError` by the stage itself."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.error = RowError(kind=kind, message=message)
