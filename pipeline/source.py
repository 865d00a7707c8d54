"""What every kind of source gives: one `SourceRow` for each image, lazily.

It does not know where the rows come from, nor what becomes of them.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

import pyarrow as pa


@dataclass(frozen=True, kw_only=True)
class SourceColumns:
    """The columns of the source that recipes read, each None if no recipe asks for it.

    Each holds a list of strings or one string for each image; null is none.
    """

    questions: str | None = None
    original_answers: str | None = None
    queries: str | None = None

    def asked_for(self) -> tuple[str, ...]:
        return tuple(name for name in (self.questions, self.original_answers, self.queries) if name is not None)


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """One image of the source. `image_uri`, `version` and `member` together are unique within the source.

    `original_answers` is empty, or as long as `questions`, or (if the source is so) of another length.
    """

    image_uri: str
    version: str
    member: str = ""
    questions: tuple[str, ...] = ()
    original_answers: tuple[str | None, ...] = ()
    queries: tuple[str, ...] = ()
    carried: bytes = b""
    """The carried columns as a one-row Arrow IPC stream; b"" if nothing is carried."""


class Source(Protocol):
    """An opened source. Opening it looked at a few objects only; `rows` walks through all of them."""

    @property
    def folder_uri(self) -> str:
        """The folder that all of the source lies in, as the job's URI names it."""

    @property
    def carried_schema(self) -> pa.Schema | None:
        """Of the carried columns; None if nothing is carried."""

    @property
    def image_column(self) -> str | None:
        """The column of the tables that holds the images; None if the images are files."""

    @property
    def num_ignored(self) -> int:
        """Files passed over because they are no images; complete once `rows` is exhausted."""

    def rows(self) -> Iterator[SourceRow]:
        """Every image once, always in the same order.

        Raises:
            ValueError: what was found along the way cannot be one source, or there is no image at all.
        """
