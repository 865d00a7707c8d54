"""What can go wrong with one row, as a closed list: each kind has a stage and is permanent or transient.

A row that fails is data, not an exception: it carries a `RowError` to the quarantine table.
"""

from dataclasses import dataclass
from enum import StrEnum


class Stage(StrEnum):
    LIST = "list"
    FETCH = "fetch"
    DECODE = "decode"
    TILE = "tile"
    LABEL = "label"


class ErrorKind(StrEnum):
    """Why a row was quarantined."""

    BAD_SAMPLE = "bad_sample"
    """The source's own record of the sample cannot be understood."""
    TOO_MANY_IMAGES = "too_many_images"
    MISSING = "missing"
    FORBIDDEN = "forbidden"
    UNSUPPORTED_URI = "unsupported_uri"
    CHANGED = "changed"
    STORE_UNAVAILABLE = "store_unavailable"
    EMPTY = "empty"
    TOO_MANY_BYTES = "too_many_bytes"
    TOO_MANY_PIXELS = "too_many_pixels"
    UNREADABLE = "unreadable"
    TRUNCATED = "truncated"
    DECODER_FAILED = "decoder_failed"
    """The decoder refuses the bytes."""
    DECODER_CRASHED = "decoder_crashed"
    """The process that decodes ended, twice: the bytes end it again."""
    DECODER_TIMED_OUT = "decoder_timed_out"
    """Transient, because the machine may have been busy."""
    DECODER_OUT_OF_MEMORY = "decoder_out_of_memory"
    """Permanent under the limit that its message names."""
    BAD_MARK = "bad_mark"
    """What the sample wants to have drawn into its image cannot be drawn there."""
    TILING_FAILED = "tiling_failed"
    CONTEXT_TOO_LONG = "context_too_long"
    ENGINE_ERROR = "engine_error"
    WORKER_DIED = "worker_died"
    ANSWER_REJECTED = "answer_rejected"
    """In every attempt, by a gate of the recipe."""

    @property
    def stage(self) -> Stage:
        """The stage that raises it."""
        return _STAGES[self]

    @property
    def permanent(self) -> bool:
        """Fails again on the same bytes; the others may succeed on a rerun."""
        return self not in _TRANSIENT


_STAGES = {
    ErrorKind.BAD_SAMPLE: Stage.LIST,
    ErrorKind.TOO_MANY_IMAGES: Stage.FETCH,
    ErrorKind.MISSING: Stage.FETCH,
    ErrorKind.FORBIDDEN: Stage.FETCH,
    ErrorKind.UNSUPPORTED_URI: Stage.FETCH,
    ErrorKind.CHANGED: Stage.FETCH,
    ErrorKind.STORE_UNAVAILABLE: Stage.FETCH,
    ErrorKind.EMPTY: Stage.FETCH,
    ErrorKind.TOO_MANY_BYTES: Stage.FETCH,
    ErrorKind.TOO_MANY_PIXELS: Stage.DECODE,
    ErrorKind.UNREADABLE: Stage.DECODE,
    ErrorKind.TRUNCATED: Stage.DECODE,
    ErrorKind.DECODER_FAILED: Stage.DECODE,
    ErrorKind.DECODER_CRASHED: Stage.DECODE,
    ErrorKind.DECODER_TIMED_OUT: Stage.DECODE,
    ErrorKind.DECODER_OUT_OF_MEMORY: Stage.DECODE,
    ErrorKind.BAD_MARK: Stage.DECODE,
    ErrorKind.TILING_FAILED: Stage.TILE,
    ErrorKind.CONTEXT_TOO_LONG: Stage.LABEL,
    ErrorKind.ENGINE_ERROR: Stage.LABEL,
    ErrorKind.WORKER_DIED: Stage.LABEL,
    ErrorKind.ANSWER_REJECTED: Stage.LABEL,
}
_TRANSIENT = {
    ErrorKind.STORE_UNAVAILABLE,
    ErrorKind.DECODER_TIMED_OUT,
    ErrorKind.ENGINE_ERROR,
    ErrorKind.WORKER_DIED,
}


@dataclass(frozen=True, kw_only=True)
class RowError:
    """One failure of one row. `message` is for a person; `kind` is what programs and retries look at."""

    kind: ErrorKind
    message: str

    @property
    def stage(self) -> Stage:
        return self.kind.stage

    def of_image(self, number: int, num_images: int) -> "RowError":
        """The same, saying which image of a sample it was: the first has number 1."""
        if num_images == 1:
            return self
        return RowError(kind=self.kind, message=f"image {number} of {num_images}: {self.message}")


class RowFailure(Exception):  # noqa: N818 - it is how one function tells its stage, and never leaves the stage
    """Raised inside a stage for one row, and turned into that row's `RowError` by the stage itself."""

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(message)
        self.error = RowError(kind=kind, message=message)
