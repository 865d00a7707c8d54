"""The export as tar shards: every sample whole under one key, for `webdataset` and for Python's own tarfile."""

import json
import tarfile
from pathlib import Path

import pyarrow as pa
import webdataset
from PIL import Image

from pipeline.exports import webdataset as shards
from pipeline.exports.export import export
from tests.pipeline.exported import (
    PICTURES,
    assert_upright_with_its_rectangle,
    box_of,
    encoded,
    finished_output,
    label,
    name_of,
)
from tests.pipeline.tables import put_table


def labels_of(row):
    name = name_of(row)
    boxes = [box_of(name)] if name else []
    return [label("captions", caption=name, style="plain"), label("grounding", query="red", boxes=boxes, image_index=0)]


def paths(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.tar"))


def test_loads_with_webdataset_and_pictures_are_upright(source, tmp_path):
    output = finished_output(source, tmp_path / "out", labels_of)
    export(output, to="webdataset", out=str(tmp_path / "wds"))
    (shard,) = paths(tmp_path / "wds")
    found = set()
    for sample in webdataset.WebDataset(str(shard), shardshuffle=False):
        labels = json.loads(sample["json"])
        name = labels["captions"][0]["caption"]
        (extension,) = sample.keys() & {"png", "jpg", "tiff", "webp"}
        (tmp_path / "picture").write_bytes(sample[extension])
        with Image.open(tmp_path / "picture") as picture:
            assert_upright_with_its_rectangle(picture, name)
            assert picture.size == (labels["images"][0]["width_px"], labels["images"][0]["height_px"])
        left, top, *_ = PICTURES[name][1]
        assert (labels["grounding"][0]["boxes"][0]["x1"], labels["grounding"][0]["boxes"][0]["y1"]) == (left, top)
        assert labels["sample_id"] == sample["__key__"]
        found.add(name)
    assert found == set(PICTURES)


def test_shards_are_bounded_and_no_sample_is_in_two(source, tmp_path, monkeypatch):
    monkeypatch.setattr(shards, "BYTES_PER_SHARD", 8 * 1024)
    output = finished_output(source, tmp_path / "out", labels_of)
    export(output, to="webdataset", out=str(tmp_path / "wds"))
    keys = []
    for path in paths(tmp_path / "wds"):
        with tarfile.open(path) as tar:
            members = tar.getmembers()
        keys += sorted({member.name.partition(".")[0] for member in members})
        assert sum(member.size for member in members) <= 8 * 1024 or len(members) == 2
        assert all((member.mtime, member.uid, member.uname) == (0, 0, "") for member in members)
    assert len(paths(tmp_path / "wds")) > 1
    assert len(keys) == len(set(keys)) == len(PICTURES)


def test_further_images_of_a_sample_are_numbered(source, tmp_path):
    names = ["a/plain.png", "b/plain.png", "a/Photo One.JPG"]
    output = finished_output(source, tmp_path / "out", lambda row: [label("ocr", text="x")], samples=[names])
    export(output, to="webdataset", out=str(tmp_path / "wds"))
    with tarfile.open(tmp_path / "wds/shard-000000.tar") as tar:
        key = tar.getnames()[0].partition(".")[0]
        assert tar.getnames() == [f"{key}.png", f"{key}.1.png", f"{key}.2.jpg", f"{key}.json"]
        with Image.open(tar.extractfile(f"{key}.2.jpg")) as picture:
            assert_upright_with_its_rectangle(picture, names[2])


def test_columns_that_the_source_carried_along_come_with_the_sample(tmp_path):
    columns = {"image": [encoded("tiny.png")], "price": pa.array(["1.10"]).cast(pa.decimal128(5, 2)), "k": [b"\x00"]}
    source = put_table(str(tmp_path), "t.parquet", columns)
    table = {"uri": source, "image_column": "image"}
    output = finished_output(table, tmp_path / "out", lambda row: [label("ocr", text="x")])
    export(output, to="webdataset", out=str(tmp_path / "wds"))
    (sample,) = webdataset.WebDataset(str(tmp_path / "wds/shard-000000.tar"), shardshuffle=False)
    assert json.loads(sample["json"])["source"] == {"price": "1.10", "k": "AA=="}
    assert sample["png"] == encoded("tiny.png")
