"""The demo's labels, and what its pictures really show -> how many labels are true."""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from model.nano.scenes import Scene, referring_phrases
from model.nano.scores import Scores

QUESTIONS_PER_PICTURE, QUERIES_PER_PICTURE = 2, 2


def questions_of(scene: Scene) -> list[str]:
    return [one.question for one in scene.questions[:QUESTIONS_PER_PICTURE]]


def queries_of(scene: Scene) -> list[str]:
    """Phrases that fit one thing; pages have none, so they are asked for the sign they do not have."""
    fitting = [phrase for phrase, boxes in referring_phrases(scene) if len(boxes) == 1]
    return random.Random(scene.seed).sample(fitting, k=min(QUERIES_PER_PICTURE, len(fitting))) or ["the sign"]


@dataclass(frozen=True, kw_only=True)
class JudgedLabel:
    """One label of one picture. `text` is for people; `boxes` are pixels of the picture."""

    table: str
    text: str
    is_true: bool
    boxes: tuple[tuple[float, float, float, float], ...] = ()


def judge(out: Path, scenes: Mapping[str, Scene]) -> dict[str, list[JudgedLabel]]:
    """By file name, the labels of a finished dataset."""
    judged: dict[str, list[JudgedLabel]] = {name: [] for name in scenes}
    for table, judge_row in _JUDGES.items():
        for row in _rows(out / table):
            name = row["image_uri"].rpartition("/")[2]
            judged[name].append(judge_row(row, scenes[name]))
    return judged


def true_lines(judged: Mapping[str, list[JudgedLabel]]) -> list[str]:
    """One line a table, for people."""
    labels = [label for ones in judged.values() for label in ones]
    lines = []
    for table, what in _WHAT_IS_TRUE.items():
        of_table = [label for label in labels if label.table == table]
        lines.append(f"{table}: {sum(one.is_true for one in of_table)} of {len(of_table)} {what}")
    return lines


_WHAT_IS_TRUE = {
    "captions": "name every shape in its colour, and no other",
    "ocr": "read every character",
    "qa": "are answered rightly",
    "grounding": "have their box where the thing is (IoU over 0.5)",
}


def _judge_caption(row: Mapping[str, Any], scene: Scene) -> JudgedLabel:
    scores = Scores()
    objects = [(one.color, one.shape) for one in scene.objects]
    scores.add_caption(row["caption"], truth=scene.caption, objects=objects)
    is_true = scores.named.right == scores.named.total == len(objects)
    return JudgedLabel(table="captions", text=row["caption"], is_true=is_true)


def _judge_text(row: Mapping[str, Any], scene: Scene) -> JudgedLabel:
    return JudgedLabel(table="ocr", text=row["text"], is_true=row["text"] == scene.text)


def _judge_answer(row: Mapping[str, Any], scene: Scene) -> JudgedLabel:
    answers = {one.question: one.answer for one in scene.questions}
    text = f"{row['question']} {row['answer']}"
    return JudgedLabel(table="qa", text=text, is_true=row["answer"] == answers[row["question"]])


def _judge_boxes(row: Mapping[str, Any], scene: Scene) -> JudgedLabel:
    truth = dict(referring_phrases(scene))[row["query"]]
    boxes = tuple((box["x1"], box["y1"], box["x2"], box["y2"]) for box in row["boxes"])
    scores = Scores()
    scores.add_boxes(boxes, truth=truth, others=[], num_objects=len(scene.objects))
    is_true = bool(scores.absent.right or scores.box_share)
    return JudgedLabel(table="grounding", text=row["query"], is_true=is_true, boxes=boxes)


_JUDGES = {"captions": _judge_caption, "ocr": _judge_text, "qa": _judge_answer, "grounding": _judge_boxes}


def _rows(folder: Path) -> list[dict[str, Any]]:
    table: pa.Table = pq.read_table(folder)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
