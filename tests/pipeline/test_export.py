"""What all exports have in common: what is in them, what is not, where they go, and that they are never half."""

import errno
import hashlib
import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image

from pipeline.exports import export as exporting
from pipeline.exports.export import export
from pipeline.exports.json_text import Spool, json_line
from pipeline.exports.writers import FORMATS
from pipeline.storage import StorageError, join_uri, open_store
from tests.pipeline.exported import (
    PICTURES,
    ask,
    box_of,
    encoded,
    finished_output,
    label,
    name_of,
    put_pictures,
)
from tests.pipeline.outputs import files_below, job_of, resolve
from tests.pipeline.tables import put_table


def labels_of(row):
    name = name_of(row)
    return [
        label("captions", caption=f"A red thing in {name}", style="plain", flags=["loop"] if "plain" in name else []),
        label("grounding", query="red thing", text="..", boxes=[box_of(name)] if name else [], image_index=0),
        ask("What is it?", "Red.", images=[0], flags=["loop", "truncated"] if "tiny" in name else []),
    ]


@pytest.fixture(scope="module")
def output(tmp_path_factory) -> str:
    """Read by many tests, written by none."""
    folder = tmp_path_factory.mktemp("shared")
    return finished_output(put_pictures(folder / "in"), folder / "out", labels_of)


def contents(folder) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in Path(folder).rglob("*")
        if path.is_file()
    }


@pytest.mark.parametrize("to", FORMATS)
def test_exported_twice_is_byte_equal_and_the_second_replaces_the_first(output, tmp_path, to):
    export(output, to=to, out=str(tmp_path / "one"))
    export(output, to=to, out=str(tmp_path / "two"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    export(output, to=to, out=str(tmp_path / "two"))
    assert contents(tmp_path / "one") == contents(tmp_path / "two")


@pytest.mark.parametrize("to", FORMATS)
def test_local_and_s3_exports_are_the_same(output, tmp_path, bucket, to):
    export(output, to=to, out=str(tmp_path / "local"))
    uri = f"{bucket}/exports/{to}"
    export(output, to=to, out=uri)
    store = open_store(uri)
    on_s3 = {name: hashlib.sha256(store.get(join_uri(uri, name))).hexdigest() for name in files_below(uri)}
    assert on_s3 == contents(tmp_path / "local")


def test_output_on_s3_is_exported_beside_its_tables_by_default(bucket):
    output = finished_output(put_pictures(f"{bucket}/in", ["tiny.png"]), f"{bucket}/out", labels_of)
    done = export(output, to="llava")
    assert done.destination == f"{bucket}/out/exports/llava"
    assert {"llava.json", "_export.json"} <= set(files_below(done.destination))


def test_rows_are_left_out_by_flag_and_counted(output, tmp_path):
    done = export(output, to="messages", out=str(tmp_path / "m"), without_flags=["loop", "truncated", "absent"])
    assert done.left_out_by_flag == {"loop": 3, "truncated": 1, "absent": 0}
    assert done.num_rows_left_out == 3
    assert done.num_rows == {"captions": len(PICTURES) - 2, "qa": len(PICTURES) - 1, "grounding": len(PICTURES)}
    assert len((tmp_path / "m/messages.jsonl").read_text().splitlines()) == sum(done.num_rows.values())


def test_tables_are_chosen(output, tmp_path):
    done = export(output, to="llava", out=str(tmp_path / "l"), tables=["qa"])
    assert done.num_rows == {"qa": len(PICTURES)}


def test_without_copies_records_name_the_images_where_they_are(output, tmp_path):
    done = export(output, to="coco", out=str(tmp_path / "c"), copy_images=False)
    images = json.loads((tmp_path / "c/instances.json").read_text())["images"]
    assert sorted(contents(tmp_path / "c")) == ["_export.json", "instances.json"]
    assert done.num_turned_images == 0
    for image in images:
        with Image.open(image["file_name"]) as picture:
            assert {image["width"], image["height"]} == set(picture.size)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"to": "llava", "tables": ["captoins"]}, "no table 'captoins': choose from captions"),
        ({"to": "llava", "tables": ["code"]}, "the output has no table code: it has captions"),
        ({"to": "coco", "tables": ["captions"]}, "captions does not fit coco, which takes grounding"),
        ({"to": "webdataset", "copy_images": False}, "webdataset holds the images themselves"),
        (
            {"to": "llava", "tables": ["captions"], "without_flags": ["all"]},
            "nothing to export: all 1 rows of captions",
        ),
    ],
)
def test_what_cannot_be_exported_is_said_in_one_line(tmp_path, options, said):
    def labels(row):
        return [label("captions", caption="x", style="plain", flags=["all"])]

    output = finished_output(put_pictures(tmp_path / "in", ["tiny.png"]), tmp_path / "out", labels)
    with pytest.raises(ValueError, match=said):
        export(output, out=str(tmp_path / "e"), **options)


def test_output_without_a_table_that_fits_has_nothing_to_export(tmp_path):
    output = finished_output(
        put_pictures(tmp_path / "in", ["tiny.png"]), tmp_path / "out", lambda row: [label("ocr", text="x")]
    )
    with pytest.raises(ValueError, match="no rows in the tables that fit coco"):
        export(output, to="coco")
    assert not (tmp_path / "out/exports").exists()


def test_run_that_has_not_finished_is_refused(tmp_path):
    job = job_of(put_pictures(tmp_path / "in", ["tiny.png"]), tmp_path / "out")
    resolve(job)
    with pytest.raises(ValueError, match="has not finished: run its job again"):
        export(str(tmp_path / "out"), to="llava")


def test_finished_run_that_has_new_images_is_refused(tmp_path):
    source = put_pictures(tmp_path / "in", ["tiny.png"])
    output = finished_output(source, tmp_path / "out", labels_of)
    put_pictures(source, ["tall.png"])
    resolve(job_of(source, output))
    with pytest.raises(ValueError, match="of 1 samples and the recipes ocr, the job of 2 and ocr"):
        export(output, to="llava")


def test_table_that_departs_from_the_manifest_is_no_whole_export(tmp_path):
    output = finished_output(put_pictures(tmp_path / "in"), tmp_path / "out", labels_of)
    (part,) = (tmp_path / "out/captions").iterdir()
    rows = pq.read_table(part)
    pq.write_table(rows.take(list(reversed(range(rows.num_rows)))), part)
    with pytest.raises(ValueError, match="table captions is not what the run has written.*labelmill verify"):
        export(output, to="llava", out=str(tmp_path / "e"))
    assert json.loads((tmp_path / "e/_export.json").read_text())["whole"] is False


def test_missing_part_of_a_table_is_named_before_anything_is_written(tmp_path):
    output = finished_output(put_pictures(tmp_path / "in", ["tiny.png"]), tmp_path / "out", labels_of)
    (part,) = (tmp_path / "out/captions").iterdir()
    part.rename(part.with_name("part-00000-of-00002.parquet"))
    with pytest.raises(ValueError, match="table captions of .* lacks parts"):
        export(output, to="llava", out=str(tmp_path / "e"))


class TestImagesThatAreGone:
    @pytest.fixture
    def output(self, tmp_path):
        output = finished_output(put_pictures(tmp_path / "in"), tmp_path / "out", labels_of)
        (tmp_path / "in/tall.png").unlink()
        (tmp_path / "in/tiny.png").write_bytes(encoded("a/plain.png"))
        return output

    @pytest.mark.parametrize("to", FORMATS)
    def test_are_counted_and_named_and_the_others_are_there(self, output, tmp_path, to):
        done = export(output, to=to, out=str(tmp_path / "e"))
        assert (done.num_missing_samples, done.num_samples) == (2, len(PICTURES) - 2)
        assert "tall.png: no such file" in done.missing[0]
        assert "tiny.png: changed since it was listed" in done.missing[1]
        records = [json.loads(line) for line in (tmp_path / "e/_left_out.jsonl").read_text().splitlines()]
        assert [record["error_kind"] for record in records] == ["missing", "changed"]

    def test_export_of_none_of_them_is_whole_and_empty(self, tmp_path):
        output = finished_output(put_pictures(tmp_path / "i", ["tall.png"]), tmp_path / "o", labels_of)
        (tmp_path / "i/tall.png").unlink()
        (tmp_path / "i").rmdir()
        done = export(output, to="llava", out=str(tmp_path / "e"))
        assert (done.num_samples, done.num_missing_samples) == (0, 1)
        assert json.loads((tmp_path / "e/llava.json").read_text()) == []


def test_image_that_a_table_names_and_that_has_changed_is_not_exported_with_labels_of_another(tmp_path):
    """Such images have no version: their bytes tell."""
    put_pictures(tmp_path / "in", ["tall.png", "tiny.png"])
    table = put_table(str(tmp_path / "in"), "t.parquet", {"image": ["tall.png", "tiny.png"]})
    output = finished_output(table, tmp_path / "out", labels_of)
    (tmp_path / "in/tall.png").write_bytes(encoded("a/plain.png"))
    done = export(output, to="llava", out=str(tmp_path / "e"))
    assert done.num_samples == 1
    assert "tall.png: is not the image that was labelled any more" in done.missing[0]


def test_uris_that_a_table_names_are_followed_as_the_job_allows_and_no_further(tmp_path):
    put_pictures(tmp_path / "elsewhere", ["tall.png"])
    table = put_table(str(tmp_path / "in"), "t.parquet", {"image": [str(tmp_path / "elsewhere/tall.png")]})
    spec = {"uri": table, "image_roots": [str(tmp_path / "elsewhere")]}
    output = finished_output(spec, tmp_path / "out", labels_of)
    assert export(output, to="llava", out=str(tmp_path / "e")).num_samples == 1
    job = tmp_path / "out/_run/job.yaml"
    job.write_text(job.read_text().replace("/elsewhere", "/nowhere"))
    done = export(output, to="llava", out=str(tmp_path / "f"))
    assert "is outside of source.image_roots" in done.missing[0]


def test_folder_with_files_of_others_is_refused_and_left_alone(output, tmp_path):
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"already holds mine\.txt, which no export wrote"):
        export(output, to="llava", out=str(tmp_path))
    assert contents(tmp_path).keys() == {"mine.txt"}


def test_file_put_into_an_earlier_export_is_not_removed_with_it(output, tmp_path):
    export(output, to="llava", out=str(tmp_path / "e"))
    (tmp_path / "e/images/notes.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"already holds images/notes\.txt"):
        export(output, to="coco", out=str(tmp_path / "e"))
    assert (tmp_path / "e/llava.json").exists()


def test_places_of_the_output_itself_are_refused(output):
    for folder in ("_run/x", "code", "captions/x"):
        with pytest.raises(ValueError, match="keeps its own files"):
            export(output, to="llava", out=f"{output}/{folder}")
    with pytest.raises(ValueError, match="no export wrote"):
        export(output, to="llava", out=output)


def test_export_that_was_broken_off_says_so_and_is_replaced_by_the_next(output, tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(Spool, "write", _raise(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            export(output, to="llava", out=str(tmp_path / "e"))
    assert json.loads((tmp_path / "e/_export.json").read_text()) == {"whole": False, "to": "llava"}
    export(output, to="llava", out=str(tmp_path / "e"))
    assert json.loads((tmp_path / "e/_export.json").read_text())["whole"] is True


def test_full_disk_is_one_clear_line(output, tmp_path, monkeypatch):
    monkeypatch.setattr(Spool, "write", _raise(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(ValueError, match="is full, where files are made.*TMPDIR"):
        export(output, to="llava", out=str(tmp_path / "e"))


def _raise(error):
    def write(self, text):
        raise error

    return write


def test_exports_are_no_images_of_a_source_that_has_the_output_within_it(tmp_path):
    source = put_pictures(tmp_path / "all", ["tiny.png"])
    output = finished_output(source, tmp_path / "all/labels", labels_of)
    export(output, to="llava")
    assert resolve(job_of(source, output)).num_new_images == 0


def test_samples_are_fetched_a_few_at_a_time(output, tmp_path, monkeypatch):
    """However many there are: what is held does not grow."""
    blocks = []

    class Counting(exporting.FetchPictures):
        def __call__(self, samples):
            blocks.append(len(samples))
            return super().__call__(samples)

    monkeypatch.setattr(exporting, "FetchPictures", Counting)
    monkeypatch.setattr(exporting, "ROWS_PER_BLOCK", 4)
    export(output, to="llava", out=str(tmp_path / "e"))
    assert blocks == [4, 4, 1]


def test_json_has_no_numbers_that_json_lacks_and_no_second_line():
    line = json_line({"a": float("nan"), "b": [float("inf"), 1.5], "c": "\u2028\u0085\nü"})
    assert line == '{"a": null, "b": [null, 1.5], "c": "\\u2028\\u0085\\nü"}'


def test_large_file_goes_to_s3_in_parts(bucket, monkeypatch, tmp_path):
    from pipeline import s3_upload

    monkeypatch.setattr(s3_upload, "PART_BYTES", 5 * 1024 * 1024)
    data = bytes(range(256)) * (11 * 1024 * 4)
    (tmp_path / "large").write_bytes(data)
    uri = f"{bucket}/large"
    with open(tmp_path / "large", "rb") as file:
        open_store(uri).put_file(uri, file)
    assert open_store(uri).get(uri) == data
    assert "-3" in open_store(uri).head(uri).version


def test_file_for_a_bucket_that_is_not_there_is_one_clear_line(bucket, monkeypatch, tmp_path):
    from pipeline import s3_upload

    monkeypatch.setattr(s3_upload, "PART_BYTES", 10)
    (tmp_path / "file").write_bytes(b"x" * 100)
    with open(tmp_path / "file", "rb") as file, pytest.raises(StorageError, match="bucket"):
        open_store(bucket).put_file(f"{bucket}-typo/large", file)
