"""Pictures, answers and rows -> HTML. All text that comes from models, files and people is escaped here; pictures are
data URIs, so that the page asks the server for no file."""

import base64
import io
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

import numpy as np
from PIL import Image

from pipeline.app.live import LiveAnswer
from pipeline.app.studio import Picture
from pipeline.previews import Preview
from schemas.rows import ImageRow, Label

COLORS = ("#e6194b", "#0072ce", "#1a8f3c", "#b35c00", "#8031a7", "#00808a")
MAX_TEXT = 20_000
"""Characters of one text that are shown."""
_TEXTS = ("caption", "answer", "code", "text", "score")
_ASKED = ("question", "query", "of_recipe")

Box = Mapping[str, Any]
"""label, x1, y1, x2, y2, in pixels of the image."""


def message(text: str, *, kind: str = "error") -> str:
    role = "alert" if kind == "error" else "status"
    return f'<div class="lm-message lm-{kind}" role="{role}">{escape(text)}</div>'


def abouts(recipes: Mapping[str, str]) -> str:
    """What each recipe is for."""
    lines = "".join(f"<div><b>{escape(name)}</b> {escape(about)}</div>" for name, about in recipes.items())
    return f'<div class="lm-asked">{lines}</div>'


def data_uri(pixels: np.ndarray) -> str:
    """Of uint8 [height, width, 3]: without loss where it is small, as JPEG where it is not."""
    file = io.BytesIO()
    is_small = pixels.size <= 3 * 512 * 512
    Image.fromarray(np.ascontiguousarray(pixels)).save(file, "PNG" if is_small else "JPEG", quality=90)
    kind = "png" if is_small else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


def picture(
    preview: Preview, *, alt: str, boxes: Sequence[Box] = (), crops: Sequence[tuple[float, float, float, float]] = ()
) -> str:
    """The image with its boxes and the edges of its tiles drawn over it."""
    width, height = preview.width_px, preview.height_px
    stroke = max(width, height) / 250
    drawn = [_crop(crop, stroke, width, height) for crop in crops] if len(crops) > 1 else []
    drawn += [_box(box, index, stroke, width, height) for index, box in enumerate(boxes)]
    svg = f'<svg viewBox="0 0 {width} {height}" preserveAspectRatio="none" aria-hidden="true">{"".join(drawn)}</svg>'
    shown_width = max(1, min(max(width, 360), 1024, round(560 * width / height)))
    return (
        f'<div class="lm-picture" style="max-width:{shown_width}px;aspect-ratio:{width}/{height}">'
        f'<img src="{data_uri(preview.pixels)}" alt="{escape(alt)}">{svg}</div>'
    )


def _box(box: Box, index: int, stroke: float, width: int, height: int) -> str:
    color, size = COLORS[index % len(COLORS)], stroke * 9
    label = str(box["label"])[:60]
    x1, y1, x2, y2 = (float(box[name]) for name in ("x1", "y1", "x2", "y2"))
    top = y1 - 2 * stroke if y1 > size * 1.4 else y1 + size * 1.3
    left = min(x1, max(0.0, width - len(label) * size * 0.6))
    text = (
        f'<text x="{left:.1f}" y="{min(top, height - stroke):.1f}" font-size="{size:.1f}" fill="{color}" stroke="#fff" '
        f'stroke-width="{size / 5:.1f}" paint-order="stroke">{escape(label)}</text>'
    )
    return (
        f'<rect class="lm-box" x="{x1:.1f}" y="{y1:.1f}" width="{x2 - x1:.1f}" height="{y2 - y1:.1f}" '
        f'data-label="{escape(label)}" fill="none" stroke="{color}" stroke-width="{stroke:.1f}"/>{text}'
    )


def _crop(crop: tuple[float, float, float, float], stroke: float, width: int, height: int) -> str:
    """As much of it as lies in the picture."""
    left, top, right, bottom = max(crop[0], 0), max(crop[1], 0), min(crop[2], width), min(crop[3], height)
    return (
        f'<rect x="{left:.1f}" y="{top:.1f}" width="{right - left:.1f}" height="{bottom - top:.1f}" fill="none" '
        f'stroke="#fff" stroke-opacity="0.75" stroke-width="{stroke / 2:.1f}" stroke-dasharray="{stroke * 3:.1f}"/>'
    )


def pictures(found: Sequence[Picture], boxes: Mapping[int, Sequence[Box]]) -> str:
    """Of a sample being tried. `boxes` by the place of their image."""
    return "".join(
        f"<figure><figcaption>{escape(one.name)}: {one.preview.width_px} × {one.preview.height_px} px</figcaption>"
        f"{picture(one.preview, alt=one.name, boxes=boxes.get(place, ()), crops=one.crops)}</figure>"
        for place, one in enumerate(found)
    )


def tiles(found: Sequence[Picture]) -> str:
    """What the model sees of each image."""
    return "".join(_tiles_of(one) for one in found)


def _tiles_of(found: Picture) -> str:
    wide, high = found.grid
    view, *local = (f'<img src="{data_uri(tile)}" alt="">' for tile in found.tiles)
    return (
        f"<figure><figcaption>{escape(found.name)}: grid {wide} × {high}, {len(found.tiles)} crops of "
        f"{found.tiles.shape[1]} px</figcaption>"
        f'<div class="lm-tiles"><div class="lm-global">{view}<small>the whole image</small></div>'
        f'<div><div class="lm-grid" style="grid-template-columns:repeat({wide},minmax(0,1fr));'
        f'max-width:{wide * 160}px">'
        f"{''.join(local)}</div><small>its tiles, row by row</small></div></div></figure>"
    )


def live_answers(found: Sequence[LiveAnswer]) -> str:
    """Of recipes at work."""
    return "".join(_live(one) for one in found) or message("The images are being encoded …", kind="busy")


def _live(answer: LiveAnswer) -> str:
    attempt = answer.attempt
    step = f" · {attempt.step}" if attempt.step else ""
    again = f" · attempt {attempt.number} of {attempt.max_attempts}" if attempt.number > 1 else ""
    state = "done" if answer.is_done else "writing"
    sent_back = "".join(f'<div class="lm-sent-back">sent back by {escape(why)}</div>' for why in answer.sent_back)
    return _card(
        title=f"{attempt.recipe}{step}{again}",
        aside=state,
        asked=[("asked", attempt.question)] if attempt.question else [],
        text=answer.text,
        extra=sent_back,
        is_writing=not answer.is_done,
    )


def labels(row: ImageRow, notes: Sequence[str] = ()) -> str:
    """What the recipes have made of a sample."""
    cards = [_label(label) for label in row.labels]
    failed = [message(f"{recipe} failed ({error.kind}): {error.message}") for recipe, error in row.recipe_errors]
    return "".join([*(message(note, kind="note") for note in notes), *failed, *cards]) or message(
        "No answer: the recipes ask nothing of this sample.", kind="note"
    )


def _label(label: Label) -> str:
    again = f", attempt {label.attempts}" if label.attempts > 1 else ""
    logprob = round(label.mean_logprob, 3) + 0  # no "-0.000"
    aside = f"{_tokens(label.num_output_tokens)}, {label.finish_reason}, mean log-probability {logprob:.3f}"
    asked = [(name, str(label.values[name])) for name in _ASKED if label.values.get(name)]
    return _card(
        title=label.recipe,
        aside=aside + again,
        asked=asked,
        text=_text_of(label.values),
        extra=_flags(label.flags) + _list_of_boxes(label.values.get("boxes")),
    )


def row_card(table_row: Mapping[str, Any], shown: str) -> str:
    """A row of an output; `shown` is the HTML of its picture."""
    if "error_kind" in table_row:
        card = _card(
            title=f"{table_row['recipe']} · {table_row['error_kind']}",
            aside=f"{table_row['stage']}, {table_row['attempts']} attempts",
            asked=[("image", table_row["image_uri"] or "")],
            text=str(table_row["message"]),
            extra="",
        )
    else:
        asked = [(name, str(table_row[name])) for name in _ASKED if table_row.get(name)]
        card = _card(
            title=table_row["recipe"],
            aside=f"{_tokens(table_row['num_output_tokens'])}, {table_row['finish_reason']}",
            asked=[("image", table_row["image_uri"] or ""), *asked],
            text=_text_of(table_row),
            extra=_flags(table_row["flags"] or ()) + _list_of_boxes(table_row.get("boxes")),
        )
    return f'<div class="lm-row"><div>{shown}</div><div>{card}</div></div>'


def _card(
    *, title: str, aside: str, asked: Sequence[tuple[str, str]], text: str, extra: str, is_writing: bool = False
) -> str:
    questions = "".join(
        f'<div class="lm-asked"><b>{escape(name)}</b> {escape(_cut(value))}</div>' for name, value in asked if value
    )
    caret = '<span class="lm-caret"></span>' if is_writing else ""
    said = f'<div class="lm-text">{escape(_cut(text))}{caret}</div>' if text or caret else ""
    return (
        f'<section class="lm-card"><header><b>{escape(title)}</b> <small>{escape(aside)}</small></header>{questions}'
        f"{said}{extra}</section>"
    )


def _text_of(values: Mapping[str, Any]) -> str:
    if values.get("query") and values.get("boxes"):  # which say all that the text says
        return ""
    texts = [str(values[name]) for name in _TEXTS if values.get(name) not in (None, "")]
    if values.get("reasoning"):
        texts.insert(0, str(values["reasoning"]))
    return texts[0] if len(texts) == 1 or values.get("caption") else "\n".join(texts)


def _tokens(count: int) -> str:
    return f"{count} token{'' if count == 1 else 's'}"


def _cut(text: str) -> str:
    return text if len(text) <= MAX_TEXT else f"{text[:MAX_TEXT]} … ({len(text)} characters)"


def _flags(flags: Sequence[str]) -> str:
    return "".join(f'<span class="lm-flag">{escape(flag)}</span>' for flag in flags)


def _list_of_boxes(boxes: Sequence[Box] | None) -> str:
    if boxes is None:
        return ""
    if not boxes:
        return '<div class="lm-boxes">no box</div>'
    lines = [
        f'<li><i style="background:{COLORS[index % len(COLORS)]}"></i>{escape(str(box["label"]))}: '
        f"({box['x1']:.0f}, {box['y1']:.0f}) to ({box['x2']:.0f}, {box['y2']:.0f}) px</li>"
        for index, box in enumerate(boxes[:64])
    ]
    more = f"<li>and {len(boxes) - 64} more</li>" if len(boxes) > 64 else ""
    return f'<ul class="lm-boxes">{"".join(lines)}{more}</ul>'
