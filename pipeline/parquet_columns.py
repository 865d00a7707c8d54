"""The schema of a Parquet table -> which column holds the images, and what each row's other columns say.

It knows Arrow schemas and batches; no files, no stores.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import Enum
from typing import Any

import pyarrow as pa

from pipeline.source import (
    CONVERSATION_AUTO,
    CONVERSATION_COLUMNS,
    SourceColumns,
    as_texts,
    without_null_questions,
)

URI_COLUMN_NAMES = (
    *("image", "images", "image_uri", "uri", "url", "image_path", "path", "file_name", "filename", "image_url"),
)


class ImageKind(Enum):
    """How a column holds images."""

    BYTES = "bytes"
    STRUCT = "struct of bytes and path"
    URI = "uri"


@dataclass(frozen=True, kw_only=True)
class TableLayout:
    """What is read from one table. `carried_schema` has no schema metadata; None if nothing is carried."""

    image_column: str | None
    """None where conversations are read, and no column looks like images."""
    image_kind: ImageKind
    """Of one image."""
    holds_lists: bool
    """Whether a row of the image column holds a list of images."""
    columns: SourceColumns
    """By their names in this table."""
    carried_schema: pa.Schema | None

    @property
    def small_columns(self) -> tuple[str, ...]:
        carried = self.carried_schema.names if self.carried_schema is not None else ()
        return tuple(dict.fromkeys((*carried, *self.columns.asked_for())))

    def small_fields(self, batch: pa.RecordBatch) -> Iterator[dict[str, Any]]:
        """For each row of a batch of the small columns, the fields of its `SourceRow`; `conversation` and `marks` as
        they stand in the table, where they are read."""
        questions = _text_lists(batch, self.columns.questions)
        answers = _text_lists(batch, self.columns.original_answers)
        queries = _text_lists(batch, self.columns.queries)
        as_written = {
            name: batch.column(column).to_pylist()
            for name in ("conversation", "original_text", "marks")
            if (column := getattr(self.columns, name)) is not None
        }
        carried = batch.select(self.carried_schema.names) if self.carried_schema is not None else None
        for row in range(batch.num_rows):
            yield {
                **without_null_questions(questions[row], answers[row]),
                "queries": tuple(query for query in queries[row] if query is not None),
                **{name: values[row] for name, values in as_written.items()},
                "carried": _one_row_stream(carried.slice(row, 1)) if carried is not None else b"",
            }


def table_layout(
    schema: pa.Schema, *, table_uri: str, image_column: str | None, carry: Sequence[str] | None, columns: SourceColumns
) -> TableLayout:
    """Finds the columns of one table.

    Args:
        image_column: None to find it: the only column of bytes or {bytes, path}, else the only column of
        strings with
            one of `URI_COLUMN_NAMES`.
        carry: None for every column but the image column.

    Raises:
        ValueError: a column that is missing, ambiguous or of a wrong type; it names the table and its
        columns.
    """
    _refuse_duplicates(schema, table_uri)
    columns = _resolved(columns, schema, table_uri)
    if image_column is None:
        image_column = _find_image_column(schema, table_uri, is_needed=columns.conversation is None)
    type_ = pa.string() if image_column is None else _field(schema, image_column, table_uri).type
    image_kind = _image_kind(_element(type_))
    if image_kind is None or (image_kind == ImageKind.BYTES and _is_list(type_)):
        raise ValueError(
            f"{table_uri}: image column {image_column!r} is {type_}; use binary, struct<bytes, path>, string, or a "
            "list of one of the last two"
        )
    _check_types(columns, schema, table_uri)
    return TableLayout(
        image_column=image_column,
        image_kind=image_kind,
        holds_lists=_is_list(type_),
        columns=columns,
        carried_schema=_carried_schema(schema, table_uri, image_column, carry),
    )


def _resolved(columns: SourceColumns, schema: pa.Schema, table_uri: str) -> SourceColumns:
    """With the column of the conversation found."""
    if columns.conversation != CONVERSATION_AUTO:
        return columns
    found = [name for name in CONVERSATION_COLUMNS if name in schema.names]
    if not found:
        raise ValueError(
            f"{table_uri}: no column {' or '.join(CONVERSATION_COLUMNS)}; set conversation_from to one of: "
            f"{_names(schema)}"
        )
    return dataclasses.replace(columns, conversation=found[0])


def _check_types(columns: SourceColumns, schema: pa.Schema, table_uri: str) -> None:
    for field in dataclasses.fields(columns):
        name = getattr(columns, field.name)
        if name is None:
            continue
        type_ = _field(schema, name, table_uri).type
        if field.name in ("conversation", "marks"):
            is_right, wanted = _is_list(type_) and pa.types.is_struct(type_.value_type), "list<struct>"
        elif field.name == "original_text":
            is_right, wanted = _is_text(type_), "string"
        else:
            is_right, wanted = _is_text(_element(type_)), "string or list<string>"
        if not is_right:
            raise ValueError(f"{table_uri}: column {name!r} is {type_}; it must be {wanted}")


def _find_image_column(schema: pa.Schema, table_uri: str, *, is_needed: bool) -> str | None:
    kinds = {field.name: _image_kind(_element(field.type)) for field in schema}
    found = [name for name, kind in kinds.items() if kind in (ImageKind.BYTES, ImageKind.STRUCT)]
    found = found or [name for name in URI_COLUMN_NAMES if kinds.get(name) == ImageKind.URI]
    if len(found) == 1:
        return found[0]
    if not found and not is_needed:
        return None
    problem = f"{', '.join(found)} could all be the image column" if found else "no column looks like images"
    raise ValueError(f"{table_uri}: {problem}; set source.image_column to one of: {_names(schema)}")


def _image_kind(type_: pa.DataType) -> ImageKind | None:
    if _is_binary(type_):
        return ImageKind.BYTES
    if _is_text(type_):
        return ImageKind.URI
    if pa.types.is_struct(type_):
        fields = {field.name: field.type for field in type_}
        if _is_binary(fields.get("bytes", pa.null())) and _is_text(fields.get("path", pa.null())):
            return ImageKind.STRUCT
    return None


def _carried_schema(
    schema: pa.Schema, table_uri: str, image_column: str | None, carry: Sequence[str] | None
) -> pa.Schema | None:
    names = [name for name in schema.names if name != image_column] if carry is None else list(carry)
    if image_column is not None and image_column in names:
        raise ValueError(f"{table_uri}: source.carry names {image_column!r}, the image column; leave it out")
    fields = [_field(schema, name, table_uri) for name in names]
    return pa.schema(fields) if fields else None


def _field(schema: pa.Schema, name: str, table_uri: str) -> pa.Field:
    if name not in schema.names:
        raise ValueError(f"{table_uri}: no column {name!r}; it has: {_names(schema)}")
    return schema.field(name)


def _refuse_duplicates(schema: pa.Schema, table_uri: str) -> None:
    if len(set(schema.names)) < len(schema.names):
        raise ValueError(f"{table_uri}: several columns have the same name: {_names(schema)}; rename them")


def _text_lists(batch: pa.RecordBatch, column: str | None) -> list[tuple[str | None, ...]]:
    if column is None:
        return [()] * batch.num_rows
    return [as_texts(value) for value in batch.column(column).to_pylist()]


def _one_row_stream(batch: pa.RecordBatch) -> bytes:
    columns = [_without_unused_entries(column) for column in batch.columns]
    sink = pa.BufferOutputStream()
    with pa.ipc.new_stream(sink, batch.schema) as writer:
        writer.write_batch(pa.record_batch(columns, schema=batch.schema))
    return sink.getvalue().to_pybytes()


def _without_unused_entries(column: pa.Array) -> pa.Array:
    # A stream writes a dictionary whole, however few of its entries the one row uses.
    if not pa.types.is_dictionary(column.type):
        return column
    used = column.dictionary.take(column.indices.drop_null())
    indices = pa.array([None if index is None else 0 for index in column.indices.to_pylist()], column.type.index_type)
    return pa.DictionaryArray.from_arrays(indices, used, ordered=column.type.ordered)


def _is_text(type_: pa.DataType) -> bool:
    if pa.types.is_dictionary(type_):
        return _is_text(type_.value_type)
    return bool(pa.types.is_string(type_) or pa.types.is_large_string(type_) or pa.types.is_string_view(type_))


def _is_list(type_: pa.DataType) -> bool:
    return bool(pa.types.is_list(type_) or pa.types.is_large_list(type_) or pa.types.is_fixed_size_list(type_))


def _element(type_: pa.DataType) -> pa.DataType:
    """Of a list; of any other type itself."""
    return type_.value_type if _is_list(type_) else type_


def _is_binary(type_: pa.DataType) -> bool:
    return bool(pa.types.is_binary(type_) or pa.types.is_large_binary(type_) or pa.types.is_binary_view(type_))


def _names(schema: pa.Schema) -> str:
    return ", ".join(schema.names)
