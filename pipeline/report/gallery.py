"""Chosen samples -> cards: pictures made small, with their labels and boxes; or why there is no picture.

Boxes stay in pixels of the upright image, whatever the size of the picture on the page.
"""

import base64
import io
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from PIL import Image

from pipeline.decode import decode_image
from pipeline.exports.pictures import ROWS_PER_BLOCK, FetchPictures, Picture
from pipeline.exports.samples import Sample
from pipeline.report.facts import TEXT_COLUMN
from pipeline.report.rows import OpenRun
from pipeline.storage import shown_uri
from schemas.errors import RowError, RowFailure
from schemas.job import LimitsSpec
from schemas.rows import ImageRow
from schemas.tables import QUARANTINE_TABLE

THUMBNAIL_PX = 512
_QUALITY = 72


@dataclass(frozen=True, kw_only=True)
class Box:
    """Left, top, width and height in percent of the picture; `color`: its number among the picture's boxes."""

    label: str
    left: float
    top: float
    width: float
    height: float
    color: int


@dataclass(frozen=True, kw_only=True)
class CardPicture:
    """`data` is the base64 of a JPEG file; the size is that of the labelled image."""

    data: str
    width_px: int
    height_px: int
    boxes: Sequence[Box]


@dataclass(frozen=True, kw_only=True)
class CardLabel:
    recipe: str
    question: str
    text: str
    details: str
    flags: Sequence[str]


@dataclass(kw_only=True)
class Card:
    """`why_no_picture` where `pictures` is empty."""

    sample_id: str
    uri: str
    pictures: Sequence[CardPicture] = ()
    why_no_picture: str = ""
    labels: list[CardLabel] = field(default_factory=list)
    errors: list[Mapping[str, Any]] = field(default_factory=list)
    """Rows of the quarantine table."""

    @property
    def grouped_errors(self) -> list[Mapping[str, Any]]:
        return grouped(self.errors)

    @property
    def recipes(self) -> list[str]:
        return list(dict.fromkeys([label.recipe for label in self.labels] + [row["recipe"] for row in self.errors]))

    @property
    def flags(self) -> list[str]:
        return list(dict.fromkeys(flag for label in self.labels for flag in label.flags))

    @property
    def error_kinds(self) -> list[str]:
        return list(dict.fromkeys(row["error_kind"] for row in self.errors))


def grouped(errors: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Rows of the quarantine table, those of one sample that say the same as one, with `recipes`."""
    found: dict[tuple[str, ...], list[Mapping[str, Any]]] = defaultdict(list)
    for row in errors:
        found[row["sample_id"], row["stage"], row["error_kind"], row["message"]].append(row)
    return [{**rows[0], "recipes": sorted(row["recipe"] for row in rows)} for rows in found.values()]


def cards(run: OpenRun, sample_ids: Sequence[str]) -> Iterator[Card]:
    """In the order of the source."""
    ids, fetch = pa.array(sample_ids, pa.string()), FetchPictures(run.job, run.folder)
    for shard in run.shards:
        rows = _rows_of(run, shard, ids)
        samples = [_sample(row, rows[row.sample_id]) for row in run.samples(shard, ids)]
        labelled = [sample for sample in samples if sample.rows]
        pictures: dict[str, tuple[CardPicture, ...] | RowError] = {}
        for first in range(0, len(labelled), ROWS_PER_BLOCK):
            block = labelled[first : first + ROWS_PER_BLOCK]
            for sample, found in zip(block, fetch(block), strict=True):
                pictures[sample.row.sample_id] = _small(found, sample, run.job.limits)
        for sample in samples:
            yield _card(sample, pictures.get(sample.row.sample_id))


def _rows_of(run: OpenRun, shard: str, ids: pa.Array) -> Mapping[str, dict[str, pa.Table]]:
    """By sample and table."""
    found: dict[str, dict[str, list[pa.Table]]] = defaultdict(lambda: defaultdict(list))
    for table, rows in run.rows(shard, run.settled(shard), sample_ids=ids):
        for sample_id in pc.unique(rows["sample_id"]).to_pylist():
            found[sample_id][table].append(rows.filter(pc.field("sample_id") == sample_id))
    joined: dict[str, dict[str, pa.Table]] = defaultdict(dict)
    for sample_id, tables in found.items():
        for table, pieces in tables.items():
            joined[sample_id][table] = pa.concat_tables(pieces).sort_by(
                [("recipe", "ascending"), ("item", "ascending")]
            )
    return joined


def _sample(row: ImageRow, rows: Mapping[str, pa.Table]) -> Sample:
    labels = {table: of for table, of in rows.items() if table != QUARANTINE_TABLE}
    beside = {table: of for table, of in rows.items() if table == QUARANTINE_TABLE}
    return Sample(row=row, rows=labels, asked=labels, beside=beside)


def _small(
    found: tuple[Picture, ...] | RowError, sample: Sample, limits: LimitsSpec
) -> "tuple[CardPicture, ...] | RowError":
    if isinstance(found, RowError):
        return found
    boxes = _boxes(sample)
    try:
        return tuple(_card_picture(picture, boxes.get(index, ()), limits) for index, picture in enumerate(found))
    except RowFailure as failure:
        return failure.error


def _card_picture(picture: Picture, boxes: Sequence[Mapping[str, Any]], limits: LimitsSpec) -> CardPicture:
    decoded = decode_image(
        picture.encoded, max_pixels=limits.max_pixels, min_decoded_fraction=limits.min_decoded_fraction
    ).image.convert("RGB")
    decoded.thumbnail((THUMBNAIL_PX, THUMBNAIL_PX), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    decoded.save(file, "JPEG", quality=_QUALITY, optimize=True)
    width, height = picture.width_px, picture.height_px
    return CardPicture(
        data=base64.b64encode(file.getvalue()).decode(),
        width_px=width,
        height_px=height,
        boxes=[
            Box(
                label=box["label"],
                left=100 * box["x1"] / width,
                top=100 * box["y1"] / height,
                width=100 * max(0.0, box["x2"] - box["x1"]) / width,
                height=100 * max(0.0, box["y2"] - box["y1"]) / height,
                color=place % 6,
            )
            for place, box in enumerate(boxes)
        ],
    )


def _boxes(sample: Sample) -> Mapping[int, list[Mapping[str, Any]]]:
    """By the place of the image that they lie in."""
    found: dict[int, list[Mapping[str, Any]]] = defaultdict(list)
    for table in sample.rows.values():
        if "boxes" in table.column_names:
            for row in table.to_pylist():
                found[row.get("image_index") or 0] += row["boxes"] or []
    return found


def _card(sample: Sample, pictures: "tuple[CardPicture, ...] | RowError | None") -> Card:
    errors = [row for table in sample.beside.values() for row in table.to_pylist()]
    card = Card(sample_id=sample.row.sample_id, uri=_shown(sample.row), errors=errors)
    card.labels = [_label(table, row) for table, rows in sample.rows.items() for row in rows.to_pylist()]
    if isinstance(pictures, RowError):
        card.why_no_picture = f"{pictures.kind}: {pictures.message}"
    elif not pictures:
        card.why_no_picture = errors[0]["message"] if errors else "a sample without images"
    else:
        card.pictures = pictures
    return card


def _shown(row: ImageRow) -> str:
    return shown_uri(row.image_uri) if row.image_uri else row.place


def _label(table: str, row: Mapping[str, Any]) -> CardLabel:
    question = row.get("question") or row.get("query") or ""
    text = row[TEXT_COLUMN[table]] or ""
    if row.get("score") is not None:
        text = f"{row['score']}: {text}"
    if row.get("reasoning"):
        text = f"{row['reasoning']}\n{text}"
    if table == "grounding":
        text = ", ".join(box["label"] for box in row["boxes"] or []) or "no box"
    logprob = "" if row["mean_logprob"] is None else f", log-probability {row['mean_logprob']:z.2f}"
    num_tokens = row["num_output_tokens"]
    details = f"{num_tokens} token{'' if num_tokens == 1 else 's'}, {row['finish_reason']}{logprob}"
    return CardLabel(recipe=row["recipe"], question=question, text=text, details=details, flags=row["flags"] or ())
