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


def questions_of(scene: Scene, count: int) -> list[str]:
    return [one.question for one in scene.questions[:count]]


def queries_of(scene: Scene, count: int) -> list[str]:
    """Phrases that fit one thing; pages have none, so they are asked for the sign they do not have."""
    fitting = [phrase for phrase, boxes in referring_phrases(scene) if len(boxes) == 1]
    return random.Random(scene.seed).sample(fitting, k=min(count, len(fitting))) or ["the sign"]


@dataclass(frozen=True, kw_only=True)
class JudgedLabel:
    """One label of one picture. `text` is for people; `boxes` are pixels of the picture."""

    table: str
    text: str
    is_true: bool
    boxes: tuple[tuple[float, float, float, float], ...] = ()


@dataclass(frozen=True, kw_only=True)
class Judgement:
    """`labels` by file name, and the scores of all of them together."""

    labels: dict[str, list[JudgedLabel]]
    scores: Scores


def judge(out: Path, scenes: Mapping[str, Scene]) -> Judgement:
    """Judges a finished dataset of these scenes."""
    judgement = Judgement(labels={name: [] for name in scenes}, scores=Scores())
    for table in _WHAT_IS_TRUE:
        for row in _rows(out / table):
            name = row["image_uri"].rpartition("/")[2]
            alone = Scores()
            for scores in (alone, judgement.scores):
                _score(scores, table, row, scenes[name])
            judgement.labels[name].append(_judged(table, row, alone))
    return judgement


def true_lines(judgement: Judgement) -> list[str]:
    """One line a table, for people."""
    labels = [label for ones in judgement.labels.values() for label in ones]
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


def _score(scores: Scores, table: str, row: Mapping[str, Any], scene: Scene) -> None:
    if table == "captions":
        objects = [(one.color, one.shape) for one in scene.objects]
        scores.add_caption(row["caption"], truth=scene.caption, objects=objects)
    elif table == "ocr":
        text = scene.layout.text
        scores.add_text(row["text"], truth=scene.text, print_size=text.print_size if text else "none")
    elif table == "qa":
        answers = {one.question: one.answer for one in scene.questions}
        scores.add_answer(row["answer"], truth=answers[row["question"]])
    else:
        truth = dict(referring_phrases(scene))[row["query"]]
        sign = [scene.layout.sign_box] if scene.layout.sign_box else []
        others = [box for box in (*(one.box for one in scene.objects), *sign) if box not in truth]
        scores.add_boxes(_boxes(row), truth=truth, others=others, num_objects=len(scene.objects))


def _judged(table: str, row: Mapping[str, Any], scores: Scores) -> JudgedLabel:
    """Args:
    scores: of this label alone.
    """
    if table == "captions":
        is_true = scores.named.right == scores.named.total == scores.found.total
        return JudgedLabel(table=table, text=row["caption"], is_true=is_true)
    if table == "ocr":
        return JudgedLabel(table=table, text=row["text"], is_true=scores.num_edits == 0)
    if table == "qa":
        return JudgedLabel(table=table, text=f"{row['question']} {row['answer']}", is_true=scores.answers.right == 1)
    is_true = bool(scores.absent.right or scores.box_share)
    return JudgedLabel(table=table, text=row["query"], is_true=is_true, boxes=tuple(_boxes(row)))


def _boxes(row: Mapping[str, Any]) -> list[tuple[float, float, float, float]]:
    return [(box["x1"], box["y1"], box["x2"], box["y2"]) for box in row["boxes"]]


def _rows(folder: Path) -> list[dict[str, Any]]:
    table: pa.Table = pq.read_table(folder)
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows
