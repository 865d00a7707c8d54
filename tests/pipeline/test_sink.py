import dataclasses
import datetime
import decimal
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline.commits import LABELLED, QUARANTINED, SKIPPED
from pipeline.storage import StorageError
from schemas import __version__
from schemas.tables import staged_schema
from tests.pipeline.outputs import (
    BUSY,
    MISSING,
    commit,
    files_below,
    finalized,
    job_of,
    labelled,
    pending,
    put_images,
    resolve,
    table_at,
)
from tests.pipeline.tables import put_table

RECIPES = ("ocr", {"name": "qa", "questions": ("How many?", "Why?")})


@pytest.fixture
def work(tmp_path):
    source = put_images(tmp_path / "photos", "a.jpg", "b.jpg")
    return resolve(job_of(source, tmp_path / "out", RECIPES))


def commits(work, shard=0):
    return list(work.folder.commits(work.shards[shard]))


def statuses(work):
    outcomes = [outcome for entry in commits(work) for outcome in entry.outcomes.to_pylist()]
    return {(outcome["recipe"], outcome["status"], outcome["num_rows"]) for outcome in outcomes}


def counts_of(receipt):
    return tuple(receipt[name][0] for name in ("num_images", "num_quarantined_images", "num_labels"))


def staged(work, table):
    return [name for name in files_below(work.folder.uri) if name.startswith(f"staged/{table}/")]


def test_block_becomes_one_staged_file_for_each_table_and_one_commit(tmp_path, output):
    work = resolve(job_of(put_images(tmp_path / "photos", "a.jpg", "b.jpg"), output, RECIPES))
    receipt = commit(work, *(labelled(work, row) for row in pending(work)))

    assert counts_of(receipt) == (2, 0, 6)
    assert (receipt["num_prompt_tokens"], receipt["num_output_tokens"]) == ([6 * 7], [6 * 3])
    assert receipt["labels_by_recipe"] == [json.dumps({"ocr": 2, "qa": 4})]
    (entry,) = commits(work)
    name = entry.files["ocr"]
    assert entry.files == {"ocr": name, "qa": name}
    assert [file for file in files_below(work.folder.uri) if file.startswith(("staged", "commits"))] == [
        f"commits/shard-00000/{name}.json",
        f"staged/ocr/{name}.parquet",
        f"staged/qa/{name}.parquet",
    ]
    assert statuses(work) == {("ocr", LABELLED, 1), ("qa", LABELLED, 2)}
    assert pending(work) == []


def test_label_row_holds_all_that_is_known(work):
    row, _ = pending(work)
    row = dataclasses.replace(labelled(work, row, says="EXIT"), flags=("exif_rotated",))
    label, prompts = row.labels[0], work.recipes[0].loaded.file.last.prompts
    commit(work, row)

    (name,) = staged(work, "ocr")
    written = pq.read_table(f"{work.folder.uri}/{name}")
    assert written.schema == staged_schema("ocr")
    assert written.to_pylist() == [
        {
            "sample_id": row.sample_id,
            "image_uri": row.image_uri,
            "image_sha256": "0" * 64,
            "width_px": 40,
            "height_px": 30,
            "tiles_wide": 1,
            "tiles_high": 1,
            "more_images": [],
            "recipe": "ocr",
            "recipe_digest": work.recipe_digests["ocr"],
            "item": 0,
            "checkpoint": work.checkpoint,
            "labelmill_version": __version__,
            "instruction": prompts[label.variant],
            "variant": label.variant,
            "prompt": prompts[label.variant],
            "parameters": label.parameters,
            "num_prompt_tokens": 7,
            "num_output_tokens": 3,
            "finish_reason": "stop",
            "mean_logprob": -0.25,
            "attempts": 1,
            "flags": ["exif_rotated"],
            "text": "EXIT",
            "format": "plain",
        }
    ]
    assert json.loads(label.parameters) == {
        "max_new_tokens": 1024,
        "temperature": 0.0,
        "top_p": 1.0,
        "repetition_penalty": 1.0,
        "stop_on_loop": True,
        "seed": json.loads(label.parameters)["seed"],
        "constrained": False,
    }


def test_row_that_failed_is_quarantined_once_for_each_of_its_recipes(work):
    a, b = pending(work)
    receipt = commit(work, a.failed(MISSING), labelled(work, b))

    assert counts_of(receipt) == (2, 1, 3)
    assert receipt["quarantined_by_kind"] == [json.dumps({"missing": 1})]
    assert statuses(work) >= {("ocr", QUARANTINED, 1), ("qa", QUARANTINED, 1)}
    (name,) = staged(work, "quarantine")
    assert pq.read_table(f"{work.folder.uri}/{name}").to_pylist() == [
        {
            "sample_id": a.sample_id,
            "image_uri": a.image_uri,
            "recipe": recipe,
            "stage": "fetch",
            "error_kind": "missing",
            "permanent": True,
            "message": "no such object",
            "attempts": 1,
            "item": 0,
        }
        for recipe in ("ocr", "qa")
    ]


def test_recipe_that_failed_leaves_the_labels_of_the_others(work):
    a, _ = pending(work)
    row = labelled(work, a)
    ocr_only = tuple(label for label in row.labels if label.recipe == "ocr")
    receipt = commit(work, dataclasses.replace(row, labels=ocr_only, recipe_errors=(("qa", BUSY),)))

    assert counts_of(receipt) == (1, 1, 1)
    assert receipt["quarantined_by_kind"] == [json.dumps({"engine_error": 1})]
    assert statuses(work) == {("ocr", LABELLED, 1), ("qa", QUARANTINED, 1)}


def test_recipe_that_asked_nothing_is_skipped(tmp_path):
    table = put_table(str(tmp_path), "t.parquet", {"image": [b"x"], "q": pa.array([[]], pa.list_(pa.string()))})
    work = resolve(job_of(table, tmp_path / "out", [{"name": "qa", "questions_from": "q"}]))
    receipt = commit(work, *(labelled(work, row) for row in pending(work)))

    assert counts_of(receipt) == (1, 0, 0)
    assert statuses(work) == {("qa", SKIPPED, 0)}
    assert [entry.files for entry in commits(work)] == [{}]
    assert pending(work) == []


def test_recipes_of_an_earlier_run_are_not_written_again(work):
    row = dataclasses.replace(pending(work)[0], recipes=("qa",))
    commit(work, labelled(work, row))
    assert statuses(work) == {("qa", LABELLED, 2)}
    assert staged(work, "ocr") == []


def test_block_of_two_shards_is_committed_in_each(tmp_path):
    source = put_images(tmp_path / "photos", "a.jpg", "b.jpg")
    resolve(job_of(source, tmp_path / "out"), limit=1)
    work = resolve(job_of(source, tmp_path / "out"))
    assert len(work.shards) == 2
    commit(work, *(labelled(work, row) for row in pending(work)))
    assert [len(commits(work, shard)) for shard in (0, 1)] == [1, 1]
    assert pending(work) == []


def test_block_without_rows_writes_nothing(work):
    assert counts_of(commit(work)) == (0, 0, 0)
    assert commits(work) == []


def test_block_written_twice_overwrites_itself(work):
    rows = [labelled(work, row) for row in pending(work)]
    commit(work, *rows)
    before = files_below(work.folder.uri)
    commit(work, *reversed(rows))
    assert files_below(work.folder.uri) == before


def test_second_attempt_with_another_result_leaves_what_the_first_one_committed(work):
    row, _ = pending(work)
    commit(work, labelled(work, row, says="first"))
    (name,) = staged(work, "ocr")
    commit(work, labelled(work, row, says="second"))
    assert len(commits(work)) == len(staged(work, "ocr")) == 2
    assert pq.read_table(f"{work.folder.uri}/{name}")["text"].to_pylist() == ["first"]


@pytest.mark.parametrize("in_the_way", ["staged/ocr", "staged/qa", "commits"])
def test_block_that_cannot_be_written_whole_is_not_committed(work, tmp_path, in_the_way):
    blocker = tmp_path / "out" / "_run" / in_the_way
    blocker.parent.mkdir(exist_ok=True)
    blocker.write_text("a file where a folder is needed")
    with pytest.raises(StorageError, match="part of the path is a file"):
        commit(work, *(labelled(work, row) for row in pending(work)))
    blocker.unlink()
    assert commits(work) == []
    assert len(pending(work)) == 2


CARRIED = {
    "price": pa.array([decimal.Decimal("1.10"), None], pa.decimal128(9, 2)),
    "taken": pa.array([1_700_000_000_123_456_789, None], pa.timestamp("ns")),
    "zoned": pa.array([1_700_000_000_123_456, None], pa.timestamp("us", tz="Europe/Berlin")),
    "nested": pa.array([[[1, 2], None, []], None], pa.list_(pa.list_(pa.int8()))),
    "structs": pa.array([[{"a": 1, "b": "x"}, None], []], pa.list_(pa.struct([("a", pa.int16()), ("b", pa.string())]))),
    "map": pa.array([[("k", 1)], None], pa.map_(pa.string(), pa.int32())),
    "class": pa.array(["cat", "cat"]).dictionary_encode(),
    "fixed": pa.array([[1.0, 2.0], None], pa.list_(pa.float16(), 2)),
    "nothing": pa.nulls(2),
    "big": pa.array(["x" * 100_000, ""], pa.large_string()),
    "view": pa.array(["short", "long" * 10], pa.string_view()),
    "bytes": pa.array([b"ends in zeros\0\0", b""], pa.binary()),
    "day": pa.array([datetime.date(2024, 2, 29), None]),
    "required": pa.array([1, 2], pa.uint64()),
    "place": pa.array([9, 8], pa.int32()),
    "flags": pa.array([["theirs"], None], pa.list_(pa.string())),
    "item": pa.array(["theirs", None]),
    "error_kind": pa.array(["theirs", None]),
}


def test_carried_columns_keep_their_types_and_values_up_to_the_dataset(tmp_path, output):
    schema = pa.schema([pa.field("image", pa.binary())])
    for name, values in CARRIED.items():
        schema = schema.append(pa.field(name, values.type, nullable=name != "required"))
    table = put_table(str(tmp_path), "t.parquet", {"image": [b"x", b"y"], **CARRIED}, schema)
    work = resolve(job_of({"uri": table, "image_column": "image"}, output))
    a, b = pending(work)
    commit(work, labelled(work, b))
    commit(work, labelled(work, a))
    finalized(work)

    written = table_at(output, "ocr")
    ours = {"flags": "source_flags", "item": "source_item", "error_kind": "source_error_kind"}
    for name, values in CARRIED.items():
        column = written[ours.get(name, name)]
        assert column.type == pq.read_schema(table).field(name).type, name
        assert column.to_pylist() == values.to_pylist(), name
    assert written["item"].to_pylist() == [0, 0]


def test_quarantined_row_keeps_its_carried_columns(tmp_path):
    table = put_table(str(tmp_path), "t.parquet", {"image": [b"x"], "id": [7], "message": ["theirs"]})
    work = resolve(job_of(table, tmp_path / "out"))
    commit(work, *(row.failed(MISSING) for row in pending(work)))
    finalized(work)
    (record,) = table_at(tmp_path / "out", "quarantine").to_pylist()
    assert (record["id"], record["source_message"], record["message"]) == (7, "theirs", "no such object")
