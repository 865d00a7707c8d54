"""The demo's pictures and their labels -> one sheet to look at, with the boxes and texts drawn in."""

import textwrap
from collections.abc import Mapping
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from jobs.demo_truth import JudgedLabel
from model.nano.scenes import Scene

COLUMNS = 4
CELL_WIDTH_PX, PICTURE_HEIGHT_PX, TEXT_HEIGHT_PX, GAP_PX = 380, 240, 216, 16
FONT_PX, LINE_PX, LINE_CHARS = 13, 17, 54
INK, WRONG_INK, GROUND, CARD = (28, 30, 34), (190, 30, 30), (232, 234, 238), (255, 255, 255)
BOX_RGB, WRONG_BOX_RGB = (0, 200, 90), (230, 40, 40)
_NAMES = {"captions": "caption", "ocr": "text", "qa": "question", "grounding": "box"}


def draw_sheet(path: Path, scenes: Mapping[str, Scene], judged: Mapping[str, list[JudgedLabel]]) -> None:
    """True labels are dark, false ones red; boxes are green and red."""
    rows = -(-len(scenes) // COLUMNS)
    cell_height = PICTURE_HEIGHT_PX + TEXT_HEIGHT_PX
    size = GAP_PX + COLUMNS * (CELL_WIDTH_PX + GAP_PX), GAP_PX + rows * (cell_height + GAP_PX)
    sheet = Image.new("RGB", size, GROUND)
    for index, (name, scene) in enumerate(scenes.items()):
        column, row = index % COLUMNS, index // COLUMNS
        card = _card(name, scene, judged[name], cell_height)
        sheet.paste(card, (GAP_PX + column * (CELL_WIDTH_PX + GAP_PX), GAP_PX + row * (cell_height + GAP_PX)))
    sheet.save(path, optimize=True)


def _card(name: str, scene: Scene, labels: list[JudgedLabel], height: int) -> Image.Image:
    card = Image.new("RGB", (CELL_WIDTH_PX, height), CARD)
    picture = _with_boxes(scene, labels)
    card.paste(picture, ((CELL_WIDTH_PX - picture.width) // 2, (PICTURE_HEIGHT_PX - picture.height) // 2))
    draw, font = ImageDraw.Draw(card), ImageFont.load_default(size=FONT_PX)
    y = PICTURE_HEIGHT_PX + 4
    draw.text((8, y), name, fill=(110, 114, 122), font=font)
    for label in labels:
        ink = INK if label.is_true else WRONG_INK
        text = f"{_NAMES[label.table]}: {' / '.join(label.text.splitlines()) or '(nothing)'}"
        for line in textwrap.wrap(text, LINE_CHARS, subsequent_indent="    "):
            y += LINE_PX
            if y + LINE_PX <= height:
                draw.text((8, y), line, fill=ink, font=font)
    return card


def _with_boxes(scene: Scene, labels: list[JudgedLabel]) -> Image.Image:
    scale = min((CELL_WIDTH_PX - 16) / scene.image.width, (PICTURE_HEIGHT_PX - 16) / scene.image.height)
    size = max(1, round(scene.image.width * scale)), max(1, round(scene.image.height * scale))
    picture = scene.image.resize(size, Image.Resampling.BICUBIC)
    draw = ImageDraw.Draw(picture)
    for label in labels:
        for x1, y1, x2, y2 in label.boxes:
            corners = (x1 * scale, y1 * scale, max(x1 * scale, x2 * scale - 1), max(y1 * scale, y2 * scale - 1))
            draw.rectangle(corners, outline=BOX_RGB if label.is_true else WRONG_BOX_RGB, width=3)
    return picture
