"""What every kind of source gives: one `SourceRow` for each sample, lazily.

It does not know where the rows come from, nor what becomes of them.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import pyarrow as pa

from schemas.errors import RowError
from schemas.rows import Mark, RowImage, Turn


@dataclass(frozen=True, kw_only=True)
class SourceColumns:
    """The columns of the source that recipes read, each None if no recipe asks for it.

    Each holds a list of strings or one string for each sample; null is none. `conversation` holds a list of messages,
    `marks` a list of marks.
    """

    questions: str | None = None
    original_answers: str | None = None
    queries: str | None = None
    conversation: str | None = None
    """`CONVERSATION_AUTO` for whichever of `CONVERSATION_COLUMNS` there is."""
    original_text: str | None = None
    marks: str | None = None

    def asked_for(self) -> tuple[str, ...]:
        names = (getattr(self, field.name) for field in dataclasses.fields(self))
        return tuple(name for name in names if name is not None)


@dataclass(frozen=True, kw_only=True)
class SourceRow:
    """One sample of the source. What `pipeline.manifest.sample_id` reads of it is unique within the source.

    `original_answers` is empty, or as long as `questions`, or (if the source is so) of another length.
    """

    images: tuple[RowImage, ...]
    place: str = ""
    """As in `ImageRow`."""
    version: str = ""
    """The sample's own: the hash of its text, where the source is a file of samples; "" where images say enough."""
    questions: tuple[str, ...] = ()
    original_answers: tuple[str | None, ...] = ()
    queries: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    original_text: str | None = None
    marks: tuple[Mark, ...] = ()
    error: RowError | None = None
    """Why the sample cannot be read: then it is a row all the same, to be quarantined."""
    carried: bytes = b""
    """The carried columns as a one-row Arrow IPC stream; b"" if nothing is carried."""

    @property
    def image_uri(self) -> str:
        """Of the first image; of a sample without any, its place."""
        return self.images[0].uri if self.images else self.place


CONVERSATION_AUTO = "auto"
CONVERSATION_COLUMNS = ("conversations", "messages")


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
        """The column of the tables that holds the images; None if the images are no part of tables."""

    @property
    def num_ignored(self) -> int:
        """Files passed over because they are no images; complete once `rows` is exhausted."""

    def rows(self) -> Iterator[SourceRow]:
        """Every sample once, always in the same order: ascending by place, see `pipeline.new_rows`.

        Raises:
            ValueError: what was found along the way cannot be one source, or there is no sample at all.
        """


def as_texts(value: str | Sequence[str | None] | None) -> tuple[str | None, ...]:
    if value is None:
        return ()
    return (value,) if isinstance(value, str) else tuple(value)


def without_null_questions(questions: tuple[str | None, ...], answers: tuple[str | None, ...]) -> dict[str, Any]:
    """`questions` and `original_answers` of a row: a null among the questions goes together with its answer, so that
    the others stay paired."""
    dropped = {position for position, question in enumerate(questions) if question is None}
    kept = tuple(answer for position, answer in enumerate(answers) if position not in dropped)
    return {"questions": tuple(text for text in questions if text is not None), "original_answers": kept}
