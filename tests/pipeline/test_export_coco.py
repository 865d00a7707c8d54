"""The export for detection: pycocotools reads it, and its boxes lie on the right pixels of its images."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from pipeline.exports.export import export
from tests.pipeline.exported import PICTURES, box_of, finished_output, label, name_of


def labels_of(row):
    name = name_of(row)
    return [
        label("grounding", query="red thing", boxes=[box_of(name)], image_index=0, item=0),
        label("grounding", query="a zebra", boxes=[], image_index=0, item=1),
        label("scores", recipe="score", score=4, of_recipe="grounding", of_item=0),
    ]


@pytest.fixture(scope="module")
def folder(source, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("coco")
    output = finished_output(source, folder / "out", labels_of)
    export(output, to="coco", out=str(folder / "coco"))
    return folder / "coco"


@pytest.fixture(scope="module")
def coco(folder) -> COCO:
    return COCO(str(folder / "instances.json"))


def test_every_box_covers_exactly_its_red_pixels_without_turning_the_image(folder, coco):
    """Of rotated, mirrored, tall, wide and tiny pictures."""
    assert len(coco.getImgIds()) == len(PICTURES)
    for image in coco.loadImgs(coco.getImgIds()):
        with Image.open(folder / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"])
            is_red = np.asarray(picture.convert("RGB"))[:, :, 1] < 128
        (annotation,) = coco.loadAnns(coco.getAnnIds(image["id"]))
        left, top, width, height = map(round, annotation["bbox"])
        inside = np.zeros_like(is_red)
        inside[top : top + height, left : left + width] = True
        np.testing.assert_array_equal(is_red, inside, err_msg=image["file_name"])


def test_annotations_have_what_pycocotools_wants(coco):
    for annotation in coco.loadAnns(coco.getAnnIds()):
        assert annotation["area"] == annotation["bbox"][2] * annotation["bbox"][3]
        assert annotation["iscrowd"] == 0
        assert annotation["score"] == 4
        assert coco.annToMask({**annotation, "segmentation": [_outline(annotation["bbox"])]}).any()


def _outline(bbox):
    left, top, width, height = bbox
    return [left, top, left + width, top, left + width, top + height, left, top + height]


def test_absent_objects_are_categories_that_images_say_they_lack(coco):
    names = {category["id"]: category["name"] for category in coco.loadCats(coco.getCatIds())}
    assert names == {1: "a zebra", 2: "red thing"}
    assert all(image["neg_category_ids"] == [1] for image in coco.loadImgs(coco.getImgIds()))
    assert coco.getAnnIds(catIds=[1]) == []


def test_image_in_which_nothing_was_found_is_listed(source, tmp_path):
    def labels(row):
        return [label("grounding", query="a zebra", boxes=[], image_index=0)]

    output = finished_output(source, tmp_path / "out", labels, samples=[["tiny.png"]])
    export(output, to="coco", out=str(tmp_path / "coco"))
    found = json.loads((tmp_path / "coco/instances.json").read_text())
    assert [image["width"] for image in found["images"]] == [3]
    assert found["annotations"] == []


def test_image_whose_boxes_are_all_left_out_is_not_there_however_they_were_scored(source, tmp_path):
    def labels(row):
        scored = label("scores", recipe="score", score=1, of_recipe="grounding", of_item=0, flags=["loop"])
        return [
            label("grounding", query="x", boxes=[], image_index=0, flags=["loop"] * ("tiny" in name_of(row))),
            scored,
        ]

    output = finished_output(source, tmp_path / "out", labels, samples=[["tiny.png"], ["tall.png"]])
    done = export(output, to="coco", out=str(tmp_path / "coco"), without_flags=["loop"])
    assert (done.num_samples, done.num_rows_left_out, done.left_out_by_flag) == (1, 1, {"loop": 1})


def test_boxes_of_a_sample_with_several_images_are_on_the_one_that_they_were_found_in(source, tmp_path):
    names = ["a/plain.png", "turned.tiff"]

    def labels(row):
        return [
            label("grounding", query="same thing", boxes=[box_of(names[1])], image_index=1),
            label("grounded_captions", text="..", caption="x", boxes=[box_of(names[0], "its twin")]),
        ]

    output = finished_output(source, tmp_path / "out", labels, samples=[names])
    export(output, to="coco", out=str(tmp_path / "coco"))
    coco = COCO(str(tmp_path / "coco/instances.json"))
    found = {
        (image["width"], image["height"]): [annotation["bbox"] for annotation in coco.imgToAnns[image["id"]]]
        for image in coco.loadImgs(coco.getImgIds())
    }
    assert found == {(120, 80): [[10, 20, 40, 40]], (100, 60): [[60, 10, 30, 30]]}


def test_ids_of_categories_follow_from_their_names_alone(source, tmp_path):
    def export_in_order(order, out):
        def labels(row):
            boxes = [box_of("tiny.png", name) for name in order]
            return [label("grounding", query="", boxes=boxes, image_index=0)]

        output = finished_output(source, tmp_path / f"{out}-output", labels, samples=[["tiny.png"]])
        export(output, to="coco", out=str(tmp_path / out))
        return json.loads((tmp_path / out / "instances.json").read_text())["categories"]

    assert export_in_order(["b", "a", "ü"], "one") == export_in_order(["ü", "b", "a"], "two")
