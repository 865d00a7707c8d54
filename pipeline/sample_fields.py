"""What a sample of JSON says by its keys -> the fields of its row, and the text columns that are carried along.

Does not know where the sample stands, nor how it names its images.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipeline.conversation import SampleError, first_of, kind_of, read_conversation, read_marks
from pipeline.source import (
    CONVERSATION_AUTO,
    CONVERSATION_COLUMNS,
    SourceColumns,
    as_texts,
    without_null_questions,
)
from schemas.rows import RowImage


def fields_of(
    sample: Mapping[str, Any],
    columns: SourceColumns,
    images: Sequence[RowImage],
    image_of: Callable[[object], RowImage],
) -> dict[str, Any]:
    """The fields of a `SourceRow` that `columns` asks for, and its images.

    Args:
        images: those that the sample has beside its conversation.
        image_of: what a part of the conversation that names its own image names. Raises SampleError.

    Raises:
        SampleError: a value of a wrong kind.
    """
    fields: dict[str, Any] = without_null_questions(
        _texts(sample, columns.questions), _texts(sample, columns.original_answers)
    )
    if columns.conversation is not None:
        conversation = read_conversation(_conversation(sample, columns.conversation), images, image_of)
        fields["turns"], images = conversation.turns, conversation.images
    queries = _texts(sample, columns.queries)
    return fields | {
        "images": tuple(images),
        "queries": tuple(query for query in queries if query is not None),
        "original_text": _text(sample, columns.original_text),
        "marks": read_marks(sample.get(columns.marks)) if columns.marks is not None else (),
    }


def carried_texts(sample: Mapping[str, Any], schema: pa.Schema) -> bytes:
    """`SourceRow.carried` for a schema of text columns: what is no text, as its JSON; a missing key is null."""
    values = [[_as_text(sample.get(name))] for name in schema.names]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(pa.record_batch(values, schema=schema))
    return sink.getvalue().to_pybytes()


def _conversation(sample: Mapping[str, Any], name: str) -> object:
    names = CONVERSATION_COLUMNS if name == CONVERSATION_AUTO else (name,)
    found = first_of(sample, names)
    if found is None:
        keys = ", ".join(list(sample)[:20])
        raise SampleError(f"has no {' or '.join(names)}; it has: {keys:.200}")
    return found


def _texts(sample: Mapping[str, Any], name: str | None) -> tuple[str | None, ...]:
    value = None if name is None else sample.get(name)
    texts = value if isinstance(value, list) else [value]
    if not all(text is None or isinstance(text, str) for text in texts):
        raise SampleError(f"{name} is not a text or a list of texts")
    return as_texts(value)


def _text(sample: Mapping[str, Any], name: str | None) -> str | None:
    value = None if name is None else sample.get(name)
    if value is not None and not isinstance(value, str):
        raise SampleError(f"{name} is {kind_of(value)} instead of a text")
    return value


def _as_text(value: object) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False)
