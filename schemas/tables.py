"""The written tables: their Arrow schemas, their version, and which columns a user may rely on.

Every label table starts with the columns of the image and of the run (`COMMON`), then its own, then whatever the
source carried along. The quarantine table holds one row for each (image, recipe) that has no label.
"""

import pyarrow as pa

SCHEMA_VERSION = "4"

PRESENT, CHANGED, GONE = "present", "changed", "gone"
SOURCE_STATE = pa.field("source_state", pa.string())
"""Whether the source still had the image when the dataset was written: `present`; `changed`, where something else is in
its place; `gone`, where nothing is."""

MORE_IMAGE = pa.struct(
    [
        pa.field("uri", pa.string()),
        pa.field("sha256", pa.string()),
        pa.field("width_px", pa.int32()),
        pa.field("height_px", pa.int32()),
    ]
)
"""An image of a sample after its first; that one has columns of its own."""

COMMON = (
    pa.field("sample_id", pa.string()),
    pa.field("image_uri", pa.string()),
    pa.field("image_sha256", pa.string()),
    pa.field("width_px", pa.int32()),
    pa.field("height_px", pa.int32()),
    pa.field("tiles_wide", pa.int32()),
    pa.field("tiles_high", pa.int32()),
    pa.field("more_images", pa.list_(MORE_IMAGE)),
    pa.field("recipe", pa.string()),
    pa.field("recipe_digest", pa.string()),
    pa.field("item", pa.int32()),
    pa.field("checkpoint", pa.string()),
    pa.field("labelmill_version", pa.string()),
    pa.field("instruction", pa.string()),
    pa.field("variant", pa.int32()),
    pa.field("prompt", pa.string()),
    pa.field("parameters", pa.string()),
    pa.field("num_prompt_tokens", pa.int32()),
    pa.field("num_output_tokens", pa.int32()),
    pa.field("finish_reason", pa.string()),
    pa.field("mean_logprob", pa.float32()),
    pa.field("attempts", pa.int32()),
    pa.field("flags", pa.list_(pa.string())),
    SOURCE_STATE,
)
"""What made each row. `item`: its place among the recipe's labels of the sample; `instruction`: the prompt's own words,
`prompt` with all that was added to them; `variant`: which of the recipe's prompts; `parameters`: JSON of how the answer
was decoded; `attempts`: how often it was decoded until the gates let it pass."""

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

MARK = pa.struct(
    [
        pa.field("kind", pa.string()),
        pa.field("points", pa.list_(pa.struct([pa.field("x", pa.float32()), pa.field("y", pa.float32())]))),
        pa.field("color", pa.string()),
    ]
)
"""What was drawn onto an image: arrow, box, circle or scribble, in pixels of the oriented original."""

OWN = {
    "captions": (pa.field("caption", pa.string()), pa.field("style", pa.string())),
    "grounded_captions": (
        pa.field("caption", pa.string()),
        pa.field("text", pa.string()),
        pa.field("boxes", pa.list_(BOX)),
    ),
    "ocr": (pa.field("text", pa.string()), pa.field("format", pa.string())),
    "qa": (
        pa.field("question", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("original_answer", pa.string()),
        pa.field("reasoning", pa.string()),
        pa.field("system", pa.string()),
        pa.field("question_images", pa.list_(pa.int32())),
    ),
    "visual_prompts": (
        pa.field("question", pa.string()),
        pa.field("answer", pa.string()),
        pa.field("mark", MARK),
    ),
    "grounding": (
        pa.field("query", pa.string()),
        pa.field("text", pa.string()),
        pa.field("boxes", pa.list_(BOX)),
        pa.field("image_index", pa.int32()),
    ),
    "code": (pa.field("code", pa.string()), pa.field("language", pa.string())),
    "scores": (
        pa.field("score", pa.int32()),
        pa.field("text", pa.string()),
        pa.field("of_recipe", pa.string()),
        pa.field("of_item", pa.int32()),
    ),
}
"""The columns that each label table adds. qa: `question_images` are the places, among the sample's images, of those
that stand before the question; `reasoning` holds the steps that led to the answer, where the recipe asks for them.
grounding: `image_index` is the place of the image that the boxes lie in. scores: what was scored, of which label."""

QUARANTINE = (
    pa.field("sample_id", pa.string()),
    pa.field("image_uri", pa.string()),
    pa.field("recipe", pa.string()),
    pa.field("stage", pa.string()),
    pa.field("error_kind", pa.string()),
    pa.field("permanent", pa.bool_()),
    pa.field("message", pa.string()),
    pa.field("attempts", pa.int32()),
    SOURCE_STATE,
)

ITEM = pa.field("item", pa.int32())

LABEL_TABLES = tuple(OWN)
QUARANTINE_TABLE = "quarantine"
ALL_TABLES = (*LABEL_TABLES, QUARANTINE_TABLE)

ROW_IMAGE = pa.struct([pa.field("uri", pa.string()), pa.field("version", pa.string()), pa.field("member", pa.string())])

TURN = pa.struct(
    [
        pa.field("role", pa.string()),
        pa.field("text", pa.string()),
        pa.field("images", pa.list_(pa.int32())),
    ]
)

ERROR = pa.struct([pa.field("kind", pa.string()), pa.field("message", pa.string())])

MANIFEST = pa.schema(
    [
        pa.field("sample_id", pa.string()),
        pa.field("image_uri", pa.string()),
        pa.field("place", pa.string()),
        pa.field("images", pa.list_(ROW_IMAGE)),
        pa.field("questions", pa.list_(pa.string())),
        pa.field("original_answers", pa.list_(pa.string())),
        pa.field("queries", pa.list_(pa.string())),
        pa.field("turns", pa.list_(TURN)),
        pa.field("original_text", pa.string()),
        pa.field("marks", pa.list_(MARK)),
        pa.field("error", ERROR),
        pa.field("carried", pa.binary()),
    ]
)
"""Every row of the source. `image_uri` repeats the first image's URI, for whoever looks in by hand: a sample without
images has its place there. `error`: why the sample cannot be read; null if it can."""


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
    """As `table_schema`, with `item` in every table, for the final order, and without what only a whole run knows."""
    schema = table_schema(table, carried)
    schema = schema.remove(schema.get_field_index(SOURCE_STATE.name))
    return schema if ITEM.name in schema.names else schema.append(ITEM)


def carried_fields(carried: pa.Schema | None) -> list[pa.Field]:
    return [field.with_name(carried_name(field.name)) for field in carried or ()]


def carried_name(column: str) -> str:
    """A carried column keeps its name, unless one of ours has it: then it becomes `source_<name>`, in every table."""
    return f"source_{column}" if column in _OURS else column


_OURS = {field.name for fields in (COMMON, QUARANTINE, (ITEM,), *OWN.values()) for field in fields}
