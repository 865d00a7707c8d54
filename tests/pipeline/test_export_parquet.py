"""The tables with their images in them, as the `datasets` library reads them."""

import datasets
import pyarrow.parquet as pq
import pytest

from pipeline.exports import parquet_with_images
from pipeline.exports.export import export
from tests.pipeline.exported import (
    PICTURES,
    ask,
    assert_upright_with_its_rectangle,
    encoded,
    finished_output,
    label,
    name_of,
)
from tests.pipeline.tables import put_table


def load(folder, table, tmp_path):
    files = str(folder / table / "part-*.parquet")
    return datasets.load_dataset("parquet", data_files=files, cache_dir=str(tmp_path / "cache"))["train"]


def test_images_are_decoded_upright_beside_the_labels(source, tmp_path):
    def labels(row):
        return [label("captions", caption=name_of(row)), ask("What?", "Red."), ask("Sure?", "Yes.", item=1)]

    output = finished_output(source, tmp_path / "out", labels)
    export(output, to="parquet-with-images", out=str(tmp_path / "p"))
    captions = load(tmp_path / "p", "captions", tmp_path)
    assert isinstance(captions.features["image"], datasets.Image)
    assert captions["caption"][:] == sorted(PICTURES)
    for row in captions:
        assert_upright_with_its_rectangle(row["image"], row["caption"])
    assert load(tmp_path / "p", "qa", tmp_path).num_rows == 2 * len(PICTURES)


def test_card_names_the_tables_so_that_each_loads_by_its_name(source, tmp_path):
    output = finished_output(source, tmp_path / "out", lambda row: [label("ocr", text="x"), label("code", code="y")])
    export(output, to="parquet-with-images", out=str(tmp_path / "p"))
    loaded = datasets.load_dataset(str(tmp_path / "p"), "code", cache_dir=str(tmp_path / "cache"))
    assert loaded["train"]["code"][:] == ["y"] * len(PICTURES)


def test_samples_of_several_images_or_none_have_a_list(source, tmp_path):
    samples = [["a/plain.png", "tall.png"], [], ["tiny.png"]]
    output = finished_output(source, tmp_path / "out", lambda row: [label("ocr", text="x")], samples=samples)
    export(output, to="parquet-with-images", out=str(tmp_path / "p"))
    rows = load(tmp_path / "p", "ocr", tmp_path)
    sizes = [[picture.size for picture in row["images"]] for row in rows]
    assert sizes == [[PICTURES[name][0] for name in names] for names in samples]


def test_parts_are_bounded(source, tmp_path, monkeypatch):
    monkeypatch.setattr(parquet_with_images, "BYTES_PER_PART", 2000)
    monkeypatch.setattr(parquet_with_images, "ROWS_PER_GROUP", 2)
    output = finished_output(source, tmp_path / "out", lambda row: [label("ocr", text=name_of(row))])
    export(output, to="parquet-with-images", out=str(tmp_path / "p"))
    parts = sorted((tmp_path / "p/ocr").iterdir())
    assert len(parts) > 1
    assert [text for part in parts for text in pq.read_table(part)["text"].to_pylist()] == sorted(PICTURES)


def test_rows_of_one_image_share_its_bytes(tmp_path):
    from tests.golden import FOLDER

    photograph = sorted((FOLDER / "images").glob("*.png"), key=lambda path: -path.stat().st_size)[0].read_bytes()
    source = put_table(str(tmp_path), "t.parquet", {"image": [photograph]})

    def labels(row):
        return [ask(f"Question {item}?", "yes", item=item) for item in range(10)]

    output = finished_output(source, tmp_path / "out", labels)
    export(output, to="parquet-with-images", out=str(tmp_path / "p"))
    (part,) = (tmp_path / "p/qa").iterdir()
    assert part.stat().st_size < 2 * len(photograph)
    assert [image["bytes"] for image in pq.read_table(part)["image"].to_pylist()] == [photograph] * 10


def test_carried_column_of_the_images_name_is_refused(tmp_path):
    columns = {"picture": [encoded("tiny.png")], "image": ["a name"]}
    source = {"uri": put_table(str(tmp_path), "t.parquet", columns), "image_column": "picture"}
    output = finished_output(source, tmp_path / "out", lambda row: [label("ocr", text="x")])
    with pytest.raises(ValueError, match="carried a column 'image'"):
        export(output, to="parquet-with-images", out=str(tmp_path / "p"))
