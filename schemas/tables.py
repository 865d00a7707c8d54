"""The written tables: their Arrow schemas, their version, and which columns a user may rely on.

Every label table starts with the columns of the image and of the run (`COMMON`), then its own, then whatever the
source carried along. The quarantine table holds one row for each (image, recipe) that has no label.
"""

import pyarrow as pa

SCHEMA_VERSION = "2"

COMMON = (
    pa.field("sample_id", pa.string()),
    pa.field("image_uri", pa.string()),
    pa.field("image_sha256", pa.string()),
    pa.field("width_px", pa.int32()),
    pa.field("height_px", pa.int32()),
    pa.field("tiles_wide", pa.int32()),
    pa.field("tiles_high", pa.int32()),
    pa.field("recipe", pa.string()),
    pa.field("recipe_digest", pa.string()),
    pa.field("checkpoint", pa.string()),
    pa.field("prompt", pa.string()),
    pa.field("num_prompt_tokens", pa.int32()),
    pa.field("num_output_tokens", pa.int32()),
    pa.field("finish_reason", pa.string()),
    pa.field("mean_logprob", pa.float32()),
    pa.field("attempts", pa.int32()),
    pa.field("flags", pa.list_(pa.string())),
)

BOX = pa.struct(
    [
        pa.field("label", pa.string()),
        pa.field("x1", pa.float32()),
        pa.field("y1", pa.float32()),
        pa.field("x2", pa.float32()),
        pa.field("y2", pa.float32()),
    ]
)
"""One box, in pixels of the oriented original: left, top, right, bottom."""

OWN = {
    "captions": (pa.field("caption", pa.string()),),
    "ocr": (pa.field("text", pa.string()),),
    "qa": (
        pa.field("question", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("original_answer", pa.string()),
    ),
    "grounding": (
        pa.field("query", pa.string()),
        pa.field("text", pa.string()),
        pa.field("boxes", pa.list_(BOX)),
    ),
}

QUARANTINE = (
    pa.field("sample_id", pa.string()),
    pa.field("image_uri", pa.string()),
    pa.field("recipe", pa.string()),
    pa.field("stage", pa.string()),
    pa.field("error_kind", pa.string()),
    pa.field("permanent", pa.bool_()),
    pa.field("message", pa.string()),
    pa.field("attempts", pa.int32()),
)

ITEM = pa.field("item", pa.int32())

LABEL_TABLES = tuple(OWN)
QUARANTINE_TABLE = "quarantine"
ALL_TABLES = (*LABEL_TABLES, QUARANTINE_TABLE)

MANIFEST = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("image_uri", pa.string()),
        pa.field("version", pa.string()),
        pa.field("member", pa.string()),
        pa.field("questions", pa.list_(pa.string())),
        pa.field("original_answers", pa.list_(pa.string())),
        pa.field("queries", pa.list_(pa.string())),
        pa.field("carried", pa.binary()),
    ]
)


def table_schema(table: str, carried: pa.Schema | None = None) -> pa.Schema:
    """The schema of one written table.

    Args:
        table: one of `ALL_TABLES`.
        carried: the columns the source carries along; they follow the table's own, under `carried_name`.
    """
    fields = QUARANTINE if table == QUARANTINE_TABLE else COMMON + OWN[table]
    fields = (*fields, *carried_fields(carried))
    return pa.schema(list(fields), metadata={"labelmill.table": table, "labelmill.schema_version": SCHEMA_VERSION})


def staged_schema(table: str, carried: pa.Schema | None = None) -> pa.Schema:
    """As `table_schema`, with `item` (which of a recipe's labels of the image this is) for the final order."""
    return table_schema(table, carried).append(ITEM)


def carried_fields(carried: pa.Schema | None) -> list[pa.Field]:
    return [field.with_name(carried_name(field.name)) for field in carried or ()]


def carried_name(column: str) -> str:
    """A carried column keeps its name, unless one of ours has it: then it becomes `source_<name>`, in every table."""
    return f"source_{column}" if column in _OURS else column


_OURS = {field.name for fields in (COMMON, QUARANTINE, (ITEM,), *OWN.values()) for field in fields}
