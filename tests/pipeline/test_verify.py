import dataclasses
import hashlib
import json
import shutil

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import parts
from pipeline.output_names import FINALIZED_FILE
from pipeline.run import run_job
from pipeline.storage import StorageError
from pipeline.verify import MAX_PROBLEMS_SHOWN, verify
from schemas.errors import ErrorKind, RowError
from tests.pipeline.asked import put_recipe
from tests.pipeline.outputs import (
    MISSING,
    commit,
    job_of,
    labelled,
    pending,
    put_images,
    resolve,
    table_at,
)
from tests.pipeline.tables import put_table

QUESTIONS = [["Why?"], ["How?", "Who?"], [], ["When?"]]
RECIPES = ["ocr", "caption", {"name": "qa", "questions_from": "q"}, {"name": "grounding", "queries": ["dog", "cat"]}]


def finish(tmp_path, output):
    """A finished output of four images, the last one in quarantine; nothing is left for a cluster to do."""
    columns = {"image": [b"x"] * len(QUESTIONS), "q": pa.array(QUESTIONS, pa.list_(pa.string()))}
    job = job_of(put_table(str(tmp_path), "t.parquet", columns), output, RECIPES)
    work = resolve(job)
    *good, bad = pending(work)
    commit(work, *(labelled(work, row) for row in good), bad.failed(MISSING))
    run_job(job)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Made once, in several parts; `output` gives each test a copy to damage."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "ROWS_PER_PART", 2)
        finish(folder, folder / "out")
    return folder / "out"


@pytest.fixture
def output(finished, tmp_path):
    return shutil.copytree(finished, tmp_path / "out")


def part(output, table, index=0):
    return sorted((output / table).iterdir())[index]


def sample_id(output, table="ocr", row=0):
    return pq.read_table(part(output, table))["sample_id"][row].as_py()


def rewrite(output, rows, table, index=0):
    """As a run that was wrong would have written the part: with its hash."""
    path = part(output, table, index)
    pq.write_table(rows, path)
    record = json.loads((output / "_run" / FINALIZED_FILE).read_text())
    record["sha256"][f"{table}/{path.name}"] = hashlib.sha256(path.read_bytes()).hexdigest()
    (output / "_run" / FINALIZED_FILE).write_text(json.dumps(record))


def problems(output) -> list[str]:
    found = verify(str(output))
    assert found.num_problems == len(found.problems)
    return found.problems


def test_good_output_has_no_problem(output):
    found = verify(str(output))
    assert (found.num_problems, found.problems) == (0, [])
    assert found.num_images == 4
    assert found.num_rows == {"ocr": 3, "captions": 3, "qa": 3, "grounding": 6, "quarantine": 4}
    assert found.outcomes["qa"] == {"labelled": 2, "quarantined": 1, "skipped": 1}
    assert found.outcomes["ocr"] == {"labelled": 3, "quarantined": 1}


def test_output_on_s3_verifies(bucket, tmp_path):
    finish(tmp_path, f"{bucket}/out")
    assert verify(f"{bucket}/out/").problems == []


def test_output_may_be_named_relative_to_where_one_is(output, monkeypatch):
    monkeypatch.chdir(output.parent)
    assert verify("out").num_problems == 0


def test_output_of_recipes_of_the_user_verifies_where_their_files_are_not(tmp_path):
    (tmp_path / "mine.py").write_text("def columns(text, asked): return {'answer': text.upper()}\n")
    each_line = "{name: lines, prompts: [List.], answer: lines}, {each: lines, prompts: ['What is {each}?']}"
    mine = put_recipe(tmp_path, f"table: qa\nparse: mine.py:columns\nsteps: [{each_line}]")
    source = put_images(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg")
    job = job_of(source, tmp_path / "out", [mine, {"name": mine, "id": "twice"}, "ocr"])
    work = resolve(job)
    a, b, c = pending(work)
    commit(work, labelled(work, a, says="one\ntwo\nthree"), labelled(work, b, says="one"), labelled(work, c, says=" "))
    run_job(job)
    for name in ("mine.py", "mine.yaml"):
        (tmp_path / name).unlink()
    found = verify(str(tmp_path / "out"))
    assert found.problems == []
    assert found.num_rows == {"qa": 8, "ocr": 3, "quarantine": 0}
    assert found.outcomes["twice"] == {"labelled": 2, "skipped": 1}
    assert table_at(tmp_path / "out", "qa")["answer"].to_pylist()[0] == "ONE\nTWO\nTHREE"


def test_answer_that_was_rejected_is_accounted_for_in_quarantine(tmp_path):
    mine = put_recipe(tmp_path, "steps: [{prompts: [It.], gates: {empty: {then: reject}}}]")
    job = job_of(put_images(tmp_path / "photos", "a.jpg"), tmp_path / "out", [mine, "ocr"])
    work = resolve(job)
    (row,) = pending(work)
    rejected = RowError(kind=ErrorKind.ANSWER_REJECTED, message="empty: ' ' says nothing; the answer begins ' '")
    ocr = dataclasses.replace(row, recipes=("ocr",))
    commit(work, dataclasses.replace(labelled(work, ocr), recipes=row.recipes, recipe_errors=(("mine", rejected),)))
    summary = run_job(job)
    assert summary["quarantined_by_kind"] == {"answer_rejected": 1}
    found = verify(str(tmp_path / "out"))
    assert found.problems == []
    assert found.outcomes == {"mine": {"quarantined": 1}, "ocr": {"labelled": 1}}


def test_row_that_is_gone_is_named(output):
    victim = sample_id(output)
    rewrite(output, pq.read_table(part(output, "ocr")).slice(1), "ocr")
    assert problems(output) == [
        f"image {victim}, recipe ocr: 1 labels expected, found 0 and 0 rows in quarantine",
        "table ocr has 2 rows, the summary 3",
    ]


@pytest.mark.parametrize(("table", "is_out_of_order"), [("qa", True), ("grounding", False), ("captions", True)])
def test_row_that_is_there_twice_is_named(output, table, is_out_of_order):
    """Behind the row of another image it is not where it belongs, either."""
    rows = pq.read_table(part(output, table))
    rewrite(output, pa.concat_tables([rows, rows.slice(0, 1)]), table)
    found = problems(output)
    order = [text for text in found if f"its row in table {table} is not where the order of the manifest" in text]
    assert len(order) == is_out_of_order
    count, of_table = (text for text in found if text not in order)
    assert count.startswith(f"image {sample_id(output, table)}, recipe ")
    assert of_table == f"table {table} has {rows_of(table) + 1} rows, the summary {rows_of(table)}"


def rows_of(table):
    return {"qa": 3, "grounding": 6, "captions": 3}[table]


def test_image_that_is_both_labelled_and_in_quarantine_is_named(output):
    rows = pq.read_table(part(output, "quarantine"))
    column = rows.column_names.index("sample_id")
    labelled_too = rows.set_column(column, "sample_id", pa.array([sample_id(output)] * rows.num_rows))
    rewrite(output, labelled_too, "quarantine")
    assert any("1 labels expected, found 1 and 1 rows in quarantine" in problem for problem in problems(output))


def test_part_that_is_gone_is_named(output):
    part(output, "grounding", 1).unlink()
    found = problems(output)
    assert "table grounding: part 1 of 0..2 is missing: run the job again" in found
    assert "table grounding has 4 rows, the summary 6" in found


def test_parts_of_two_runs_side_by_side_are_named(output):
    shutil.copy(part(output, "ocr"), output / "ocr" / "part-00000-of-00001.parquet")
    assert "table ocr: its parts are of 1 and of 2: run the job again" in problems(output)


def test_table_that_is_gone_is_named(output):
    shutil.rmtree(output / "captions")
    found = problems(output)
    assert "table captions: its parts are of 0: run the job again" in found
    assert "table captions has 0 rows, the summary 3" in found


def test_file_that_does_not_belong_is_named(output):
    (output / "ocr" / "notes.md").write_text("mine")
    assert problems(output) == ["table ocr: notes.md is not a part that a run wrote: move it elsewhere"]


def test_row_of_an_image_that_is_no_input_is_named(output):
    rows = pq.read_table(part(output, "ocr"))
    stranger = rows.slice(0, 1).set_column(0, "sample_id", pa.array(["f" * 32]))
    rewrite(output, pa.concat_tables([rows, stranger]), "ocr")
    assert f"image {'f' * 32}, recipe ocr: in a table, but not in the manifest or not in the job" in problems(output)


def test_row_of_a_recipe_that_is_not_in_the_job_is_named(output):
    rows = pq.read_table(part(output, "ocr"))
    recipe = pa.array(["ocr2"] + ["ocr"] * (rows.num_rows - 1))
    rewrite(output, rows.set_column(rows.column_names.index("recipe"), "recipe", recipe), "ocr")
    assert any(
        "recipe ocr2: in a table, but not in the manifest or not in the job" in text for text in problems(output)
    )


def test_rows_in_another_order_than_the_manifest_are_named(output):
    rows = pq.read_table(part(output, "ocr"))
    rewrite(output, pa.concat_tables([rows.slice(1), rows.slice(0, 1)]), "ocr")
    first = rows["sample_id"][0].as_py()
    assert problems(output) == [
        f"image {first}, recipe ocr: its row in table ocr is not where the order of the manifest has it"
    ]


def test_bit_that_flipped_in_a_part_is_named_although_parquet_does_not_notice(output):
    path = part(output, "ocr")
    encoded = bytearray(path.read_bytes())
    statistics = encoded.rindex(b"Read all the text")  # in the footer: the largest prompt of the column
    encoded[statistics] ^= 1
    path.write_bytes(encoded)
    assert pq.read_table(path).num_rows == 2
    (problem,) = problems(output)
    assert problem.startswith(f"ocr/{path.name}: its bytes are not those that were written (SHA-256 ")


def test_manifest_shard_whose_bytes_differ_is_named(output):
    path = output / "_run" / "manifest" / "shard-00000.parquet"
    pq.write_table(pq.read_table(path), path, compression="none")
    (problem,) = problems(output)
    assert problem.startswith("_run/manifest/shard-00000.parquet: its bytes are not those that were written")


def test_part_without_a_written_hash_is_named(output):
    record = json.loads((output / "_run" / FINALIZED_FILE).read_text())
    del record["sha256"]["ocr/part-00001-of-00002.parquet"]
    (output / "_run" / FINALIZED_FILE).write_text(json.dumps(record))
    assert [problem.split(":")[0] for problem in problems(output)] == ["ocr/part-00001-of-00002.parquet"]


def test_run_that_ended_before_it_wrote_down_its_parts_is_named(output):
    (output / "_run" / FINALIZED_FILE).unlink()
    (problem,) = problems(output)
    assert problem.startswith("no _run/finalized.json")


def test_image_that_is_in_the_manifest_twice_is_named_once(output):
    path = output / "_run" / "manifest" / "shard-00000.parquet"
    rows = pq.read_table(path)
    pq.write_table(pa.concat_tables([rows, rows.slice(2, 1)]), path)
    found = verify(str(output))
    assert found.num_images == 4
    _changed_bytes, twice = found.problems
    assert twice.startswith(f"image {rows['sample_id'][2].as_py()} is in the manifest twice: ")


def test_many_problems_are_counted_and_a_few_are_shown(output):
    rows = pq.read_table(part(output, "ocr"))
    strangers = [rows.slice(0, 1).set_column(0, "sample_id", pa.array([f"{n:032}"])) for n in range(30)]
    rewrite(output, pa.concat_tables([rows, *strangers]), "ocr")
    found = verify(str(output))
    assert (found.num_problems, len(found.problems)) == (31, MAX_PROBLEMS_SHOWN)


def test_part_that_cannot_be_read_is_an_error(output):
    part(output, "ocr").write_bytes(b"PAR1")
    with pytest.raises(StorageError, match="not a readable Parquet file"):
        verify(str(output))


@pytest.mark.parametrize(("gone", "said"), [("run.json", "holds no run"), ("summary.json", "has not finished")])
def test_output_without_a_finished_run_is_an_error(output, gone, said):
    (output / "_run" / gone).unlink()
    with pytest.raises(ValueError, match=said):
        verify(str(output))


def test_folder_that_is_no_output_is_an_error(tmp_path):
    with pytest.raises(ValueError, match="holds no run"):
        verify(str(tmp_path))
