"""Samples with boxes -> `instances.json`, as pycocotools reads it, written piece by piece.

Boxes are in pixels of the upright image. An image in which nothing was found is there as well, and `neg_category_ids`
(as LVIS has it) says what was looked for and is not in it.
"""

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from pipeline.exports.destination import Destination
from pipeline.exports.json_text import Spool, json_line
from pipeline.exports.pictures import Picture
from pipeline.exports.samples import Sample

FILE = "instances.json"
BOX_TABLES = ("grounding", "grounded_captions")

_DECIMALS = 2
"""Of a pixel; the model's own grid is coarser."""


class CocoFile:
    """Ids count from 1: images and boxes in their order, categories in that of their names."""

    def __init__(self, destination: Destination) -> None:
        self._destination = destination
        self._images, self._boxes = Spool(), Spool()
        self._num_images = self._num_boxes = 0
        self._labels: set[str] = set()

    def add(self, sample: Sample, pictures: Sequence[Picture]) -> int:
        by_picture: dict[int, list[Mapping[str, Any]]] = {}
        for table in BOX_TABLES:
            for record in sample.rows[table].to_pylist() if table in sample.rows else ():
                by_picture.setdefault(record.get("image_index") or 0, []).append(record)
        scores = _scores(sample)
        for index, records in sorted(by_picture.items()):
            self._num_images += 1
            self._add_image(sample.row.sample_id, pictures[index], records)
            for record in records:
                for box in record["boxes"]:
                    self._add_box(box, scores.get((record["recipe"], record["item"])))
        return 0

    def finish(self) -> None:
        ids = {label: number for number, label in enumerate(sorted(self._labels), start=1)}
        with self._images, self._boxes, Spool() as whole:
            whole.write('{"info": {"description": "made by labelmill"}, "licenses": [],\n"images": [')
            _write_all(whole, (_with_absent(record, ids) for record in _records(self._images)))
            whole.write('],\n"annotations": [')
            _write_all(whole, (_with_category(record, ids) for record in _records(self._boxes)))
            whole.write('],\n"categories": [')
            _write_all(whole, ({"id": number, "name": label} for label, number in ids.items()))
            whole.write("]}\n")
            self._destination.put_file(FILE, whole.file)

    def _add_image(self, sample_id: str, picture: Picture, records: Sequence[Mapping[str, Any]]) -> None:
        found = {box["label"] for record in records for box in record["boxes"]}
        found |= {record["query"] for record in records if record["boxes"] and record.get("query")}
        absent = {record["query"] for record in records if not record["boxes"] and record.get("query")} - found
        self._labels |= absent
        record = {
            "id": self._num_images,
            "file_name": picture.name,
            "width": picture.width_px,
            "height": picture.height_px,
            "sample_id": sample_id,
            "absent": sorted(absent),
        }
        self._images.write(json_line(record) + "\n")

    def _add_box(self, box: Mapping[str, Any], score: int | None) -> None:
        left, top, right, bottom = (round(box[side], _DECIMALS) for side in ("x1", "y1", "x2", "y2"))
        width, height = round(right - left, _DECIMALS), round(bottom - top, _DECIMALS)
        self._num_boxes += 1
        self._labels.add(box["label"])
        record = {
            "id": self._num_boxes,
            "image_id": self._num_images,
            "label": box["label"],
            "bbox": [left, top, width, height],
            "area": round(math.prod((width, height)), 2 * _DECIMALS),
            "iscrowd": 0,
        }
        self._boxes.write(json_line(record if score is None else {**record, "score": score}) + "\n")


def _with_absent(record: dict[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    absent = record.pop("absent")
    return {**record, "neg_category_ids": [ids[label] for label in absent]}


def _with_category(record: dict[str, Any], ids: Mapping[str, int]) -> dict[str, Any]:
    label = record.pop("label")
    return {**record, "category_id": ids[label]}


def _scores(sample: Sample) -> dict[tuple[str, int], int]:
    """By recipe and item, where a judge has scored them."""
    records = sample.beside["scores"].to_pylist() if "scores" in sample.beside else []
    return {(of["of_recipe"], of["of_item"]): of["score"] for of in records if of["score"] is not None}


def _records(spool: Spool) -> Iterator[dict[str, Any]]:
    spool.file.seek(0)
    return map(json.loads, spool.file)


def _write_all(whole: Spool, records: Iterator[Mapping[str, Any]]) -> None:
    for number, record in enumerate(records):
        whole.write((",\n" if number else "\n") + json_line(record))
