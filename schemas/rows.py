"""The record of one sample, of one or several images or none, on its way from the manifest to the sink.

`ImageRow` holds what is small; bytes and pixels travel beside it in columns of their own (`encoded`, `tiles`), so
that every hop moves only what the next one needs. A block of the pipeline is a dict of columns; `to_columns` and
`rows_of` are the only two places that know how a row lies in it.
"""

import dataclasses
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from schemas.errors import ErrorKind, RowError

ROW_COLUMN = "row"
CARRIED_COLUMN = "carried"
ENCODED_COLUMN = "encoded"
TILES_COLUMN = "tiles"
ENGINE_COLUMN = "engine"
"""Of labelled rows: what their replica's engine did since its last block, the same in every row of the block."""


@dataclass(frozen=True, kw_only=True)
class RowImage:
    """One image of a row. The fields from `sha256` on are filled in by later stages."""

    uri: str
    version: str = ""
    """The store's own name for the bytes of the file: an object's etag, or size and modification time of a file; "" for
    a file that a sample names by its URI, which nobody has looked at yet."""
    member: str = ""
    """Where inside a container file the image lies, e.g. "row_group:row" of a Parquet table; "" for a plain file."""
    sha256: str = ""
    """Of the encoded bytes."""
    width_px: int = 0
    height_px: int = 0
    """Of the decoded image, after its EXIF orientation was applied."""
    tiles_wide: int = 0
    tiles_high: int = 0

    @property
    def num_tiles(self) -> int:
        """With the global view."""
        return 1 + self.tiles_wide * self.tiles_high


@dataclass(frozen=True, kw_only=True)
class Turn:
    """One message of a conversation of the source."""

    role: str
    """system, user or assistant"""
    text: str
    """Without the marks of images: data, whatever it spells."""
    images: tuple[int, ...] = ()
    """Places, among the row's images, of those that stand before the text."""


@dataclass(frozen=True, kw_only=True)
class Mark:
    """Something to draw onto the row's first image, in pixels of the oriented original."""

    kind: str
    """arrow (from, to), box (two corners), circle (two corners of its bounding box) or scribble (2 or more points)"""
    points: tuple[tuple[float, float], ...]
    color: str = "red"


@dataclass(frozen=True, kw_only=True)
class Label:
    """One output of one recipe on one image: one row of one label table, without the columns of the image."""

    recipe: str
    recipe_digest: str
    table: str
    item: int
    """Place among the recipe's labels of the image: the question's or query's number, 0 where there is one."""
    instruction: str = ""
    """The prompt's own words, as the recipe has them."""
    variant: int = 0
    prompt: str
    parameters: str = ""
    """JSON of how the answer was decoded."""
    num_prompt_tokens: int
    num_output_tokens: int
    finish_reason: str
    mean_logprob: float
    attempts: int = 1
    """How often it was decoded until the gates let it pass."""
    flags: tuple[str, ...] = ()
    values: Mapping[str, Any] = field(default_factory=dict)
    """The table's own columns, e.g. `{"caption": ...}`; see `schemas.tables`."""


@dataclass(frozen=True, kw_only=True)
class ImageRow:
    """One sample and everything known about it so far. Fields below the first group are filled in by later stages.

    The properties give those of the first image, "" or 0 where there is none.
    """

    sample_id: str
    images: tuple[RowImage, ...]
    """In the order of the sample; none where it is text alone."""
    place: str = ""
    """"table_uri#row" or "file_uri#line" of a sample of a table or SFT file, which has chosen the URIs of its images;
    "" for an image file of the source itself."""
    manifest_shard: str
    recipes: tuple[str, ...]
    """Names of the recipes still to run on this sample."""
    num_earlier_attempts: int = 0
    """Runs that have tried one of them and failed."""
    questions: tuple[str, ...] = ()
    original_answers: tuple[str | None, ...] = ()
    queries: tuple[str, ...] = ()
    turns: tuple[Turn, ...] = ()
    """The sample's conversation, if the job reads it."""
    original_text: str | None = None
    """The source's own caption or alt text, if the job reads it."""
    marks: tuple[Mark, ...] = ()
    carried: bytes = b""
    """Columns carried along from the source: a one-row Arrow IPC stream, opaque to every stage; b"" for none."""

    metadata: tuple[tuple[str, str], ...] = ()
    """What the first image's file says of the picture, by name: when, with what and where it was taken."""
    marked_grids: tuple[tuple[int, int], ...] = ()
    """(tiles_wide, tiles_high) of the pictures with one of `marks` each, whose tiles follow those of the images."""
    flags: tuple[str, ...] = ()
    error: RowError | None = None
    """Set by the listing or the stage that gave the sample up; every recipe of the row is then quarantined with it."""
    labels: tuple[Label, ...] = ()
    recipe_errors: tuple[tuple[str, RowError], ...] = ()
    """Recipes that failed although the images were fine."""

    @property
    def image_uri(self) -> str:
        return self.images[0].uri if self.images else ""

    @property
    def version(self) -> str:
        return self.images[0].version if self.images else ""

    @property
    def member(self) -> str:
        return self.images[0].member if self.images else ""

    @property
    def image_sha256(self) -> str:
        return self.images[0].sha256 if self.images else ""

    @property
    def width_px(self) -> int:
        return self.images[0].width_px if self.images else 0

    @property
    def height_px(self) -> int:
        return self.images[0].height_px if self.images else 0

    @property
    def tiles_wide(self) -> int:
        return self.images[0].tiles_wide if self.images else 0

    @property
    def tiles_high(self) -> int:
        return self.images[0].tiles_high if self.images else 0

    def failed(self, error: RowError) -> "ImageRow":
        return dataclasses.replace(self, error=error)

    def to_json(self) -> str:
        """`carried` is left out: it has a column of its own, because JSON cannot hold bytes."""
        record = dataclasses.asdict(self)
        del record["carried"]
        return json.dumps(record, ensure_ascii=False)

    @classmethod
    def from_json(cls, text: str, carried: bytes) -> "ImageRow":
        record = json.loads(text)
        for name in ("recipes", "questions", "original_answers", "queries", "flags"):
            record[name] = tuple(record[name])
        record["images"] = tuple(RowImage(**image) for image in record["images"])
        record["turns"] = tuple(Turn(**{**turn, "images": tuple(turn["images"])}) for turn in record["turns"])
        record["marks"] = tuple(mark_of(mark) for mark in record["marks"])
        record["metadata"] = tuple((name, value) for name, value in record["metadata"])
        record["marked_grids"] = tuple((wide, high) for wide, high in record["marked_grids"])
        record["error"] = _error_of(record["error"])
        record["labels"] = tuple(Label(**{**label, "flags": tuple(label["flags"])}) for label in record["labels"])
        record["recipe_errors"] = tuple((name, _error_of(error)) for name, error in record["recipe_errors"])
        return cls(carried=carried, **record)


def to_columns(rows: Sequence[ImageRow], **payload: Sequence[Any]) -> dict[str, list[Any]]:
    """Rows and their payload columns (`encoded=`, `tiles=`) as one block of the pipeline."""
    columns: dict[str, list[Any]] = {
        ROW_COLUMN: [row.to_json() for row in rows],
        CARRIED_COLUMN: [row.carried for row in rows],
    }
    columns.update({name: list(values) for name, values in payload.items()})
    assert all(len(values) == len(rows) for values in columns.values()), "a payload column lost or gained a row"
    return columns


def rows_of(columns: Mapping[str, Iterable[Any]]) -> list[ImageRow]:
    """The rows of one block, in order."""
    return [
        ImageRow.from_json(str(text), bytes(carried))
        for text, carried in zip(columns[ROW_COLUMN], columns[CARRIED_COLUMN], strict=True)
    ]


def mark_of(record: Mapping[str, Any]) -> Mark:
    """A mark as JSON holds it."""
    return Mark(kind=record["kind"], points=tuple((x, y) for x, y in record["points"]), color=record["color"])


def _error_of(record: Mapping[str, str] | None) -> RowError | None:
    if record is None:
        return None
    return RowError(kind=ErrorKind(record["kind"]), message=record["message"])
