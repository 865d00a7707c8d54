import dataclasses

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from pipeline import parts, staged_rows
from pipeline.finalize import ReconciliationError
from pipeline.recipes import make_recipes
from pipeline.storage import StorageError, join_uri, open_store
from schemas.job import RecipeSpec
from schemas.tables import table_schema
from tests.pipeline.outputs import (
    BUSY,
    MISSING,
    commit,
    commit_all,
    files_below,
    finalized,
    job_of,
    labelled,
    names_in,
    pending,
    put_images,
    resolve,
    table_at,
)
from tests.pipeline.tables import put_table

NAMES = [f"{letter}.jpg" for letter in "abcdef"]
QUESTIONS = {"name": "qa", "questions": ("How many?", "Why?", "Who?")}


@pytest.fixture
def source(tmp_path):
    return put_images(tmp_path / "photos", *NAMES)


def work_of(source, output, recipes=("ocr", QUESTIONS), limit=None):
    return resolve(job_of(source, output, recipes), limit=limit)


def parts_of(output, table):
    return files_below(join_uri(str(output), table))


def test_order_is_that_of_the_source_whatever_the_order_of_the_commits(source, output):
    work = work_of(source, output)
    rows = [labelled(work, row) for row in pending(work)]
    for block in ((rows[4], rows[0]), (rows[5],), (rows[3], rows[1], rows[2])):
        commit(work, *block)
    accounts = finalized(work)

    assert names_in(output, "ocr") == NAMES
    questions = table_at(output, "qa").select(["image_uri", "question"]).to_pylist()
    assert questions == [
        {"image_uri": f"{source}/{name}", "question": question} for name in NAMES for question in QUESTIONS["questions"]
    ]
    assert accounts.num_images == 6
    assert accounts.num_rows == {"ocr": 6, "qa": 18, "quarantine": 0}


def test_shards_follow_one_another(source, output):
    for limit in (2, 3, None):
        work = work_of(source, output, limit=limit)
    assert len(work.shards) == 3
    commit(work, *(labelled(work, row) for row in reversed(pending(work))))
    assert finalized(work).num_images == 6
    assert names_in(output, "ocr") == NAMES


def test_every_input_ends_in_exactly_one_way_for_each_recipe(tmp_path):
    columns = {"image": [b"x"] * 4, "q": pa.array([["Why?"], [], ["How?", "Who?"], []], pa.list_(pa.string()))}
    source = put_table(str(tmp_path), "t.parquet", columns)
    work = work_of(source, tmp_path / "out", ["ocr", {"name": "qa", "questions_from": "q"}])
    one, two, three, four = pending(work)
    commit(work, labelled(work, one), labelled(work, two))
    commit(work, three.failed(MISSING), labelled(work, four, error=BUSY))
    accounts = finalized(work)

    assert accounts.outcomes == {
        "ocr": {"labelled": 2, "quarantined": 2, "skipped": 0},
        "qa": {"labelled": 1, "quarantined": 2, "skipped": 1},
    }
    assert accounts.num_rows == {"ocr": 2, "qa": 1, "quarantine": 4}
    assert accounts.quarantined_by_kind == {"missing": 1, "engine_error": 1}
    assert (accounts.num_quarantined_images, accounts.quarantined_fraction) == (2, 0.5)


def test_block_that_was_split_differently_when_it_ran_again_counts_once(source, tmp_path):
    work = work_of(source, tmp_path / "out")
    rows = pending(work)
    first = [labelled(work, row, says="first") for row in rows]
    second = [labelled(work, row, says="second") for row in rows]
    commit(work, *first[:4])
    for row in second:
        commit(work, row)
    commit(work, *second[2:])
    accounts = finalized(work)

    assert accounts.num_rows == {"ocr": 6, "qa": 18, "quarantine": 0}
    answers = table_at(tmp_path / "out", "qa").select(["image_uri", "question", "answer"]).to_pylist()
    assert len({(answer["image_uri"], answer["question"]) for answer in answers}) == 18
    by_image = {(answer["image_uri"], answer["answer"]) for answer in answers}
    assert len(by_image) == 6, "the answers of one image come from one attempt"


@pytest.mark.parametrize("labels_come_first", [True, False])
def test_labels_of_one_attempt_come_before_the_failure_of_another(source, tmp_path, labels_come_first):
    work = work_of(source, tmp_path / "out")
    rows = pending(work)
    good, bad = [labelled(work, row) for row in rows], [labelled(work, row, error=BUSY) for row in rows]
    for block in (good, bad) if labels_come_first else (bad, good):
        for row in block:
            commit(work, row)
    assert finalized(work).num_rows == {"ocr": 6, "qa": 18, "quarantine": 0}


def test_input_without_an_outcome_is_named_and_the_old_dataset_stays(source, output):
    work = work_of(source, output, limit=2)
    commit_all(work)
    finalized(work)
    before = table_at(output, "ocr")

    work = work_of(source, output)
    rows = pending(work)
    commit(work, *(labelled(work, row) for row in rows[:-1]))
    with pytest.raises(ReconciliationError, match=f"image {rows[-1].sample_id} has no outcome for recipe ocr"):
        finalized(work)
    assert table_at(output, "ocr") == before


def test_outcome_of_no_input_is_named(source, tmp_path):
    """Two runs at once on one output could leave such a commit."""
    work = work_of(source, tmp_path / "out")
    stranger = dataclasses.replace(labelled(work, pending(work)[0]), sample_id="f" * 32)
    commit_all(work)
    commit(work, stranger)
    with pytest.raises(ReconciliationError, match=f"a commit has image {stranger.sample_id}, which the manifest does"):
        finalized(work)


def test_staged_file_with_fewer_rows_than_its_commit_says_is_named(source, tmp_path):
    work = work_of(source, tmp_path / "out", ["ocr"])
    commit(work, *(labelled(work, row) for row in pending(work)))
    (staged,) = (tmp_path / "out" / "_run" / "staged" / "ocr").iterdir()
    pq.write_table(pq.read_table(staged).slice(1), staged)
    with pytest.raises(ReconciliationError, match="has 1 rows for image .* its staged files have 0"):
        finalized(work)
    assert parts_of(tmp_path / "out", "ocr") == []


def test_staged_file_that_is_gone_is_named(source, tmp_path):
    work = work_of(source, tmp_path / "out", ["ocr"])
    commit(work, *(labelled(work, row) for row in pending(work)))
    (staged,) = (tmp_path / "out" / "_run" / "staged" / "ocr").iterdir()
    staged.unlink()
    with pytest.raises(StorageError, match=staged.name):
        finalized(work)


def test_staged_file_that_no_commit_names_does_not_exist(source, tmp_path):
    work = work_of(source, tmp_path / "out", ["ocr"])
    commit_all(work)
    staged = tmp_path / "out" / "_run" / "staged" / "ocr"
    (staged / "orphan.parquet").write_bytes(next(staged.iterdir()).read_bytes())
    (staged / "torn.parquet").write_bytes(b"PAR1 half a file")
    assert finalized(work).num_rows["ocr"] == 6


def test_commits_of_another_digest_are_left_out(source, tmp_path):
    work = work_of(source, tmp_path / "out", ["ocr"])
    recipes = make_recipes([RecipeSpec(name="ocr", seed=1)], checkpoint_digest="another")
    earlier = dataclasses.replace(work, recipes=recipes)
    for row in pending(earlier):
        commit(earlier, labelled(earlier, row, says="of an earlier job"))
    commit_all(work)
    finalized(work)
    assert table_at(tmp_path / "out", "ocr")["text"].to_pylist() == ["seen"] * 6


def test_full_parts_roll_over_and_stale_ones_go(source, output, monkeypatch):
    work = work_of(source, output)
    commit_all(work)
    monkeypatch.setattr(parts, "ROWS_PER_PART", 4)
    finalized(work)
    assert parts_of(output, "ocr") == ["part-00000-of-00002.parquet", "part-00001-of-00002.parquet"]
    assert len(parts_of(output, "qa")) == 5
    assert names_in(output, "ocr") == NAMES
    assert names_in(output, "qa") == [name for name in NAMES for _ in range(3)]

    monkeypatch.setattr(parts, "ROWS_PER_PART", 6)
    finalized(work)
    assert parts_of(output, "ocr") == ["part-00000-of-00001.parquet"]
    assert len(parts_of(output, "qa")) == 3
    assert names_in(output, "qa") == [name for name in NAMES for _ in range(3)]
    assert not [name for name in files_below(work.folder.uri) if name.startswith("parts/")]


def test_parts_roll_over_by_their_bytes_too(tmp_path, monkeypatch):
    notes = [letter * 50_000 for letter in "abcdef"]
    source = put_table(str(tmp_path), "t.parquet", {"image": [b"x"] * 6, "note": notes})
    work = work_of(source, tmp_path / "out", ["ocr"])
    commit_all(work)
    monkeypatch.setattr(parts, "BYTES_PER_PART", 120_000)
    monkeypatch.setattr(staged_rows, "BYTES_PER_PIECE", 60_000)
    finalized(work)
    assert len(parts_of(tmp_path / "out", "ocr")) == 3
    assert table_at(tmp_path / "out", "ocr")["note"].to_pylist() == notes


def test_row_larger_than_a_part_is_a_part_of_its_own(tmp_path, monkeypatch):
    notes = ["a" * 50_000, "b", "c" * 50_000]
    source = put_table(str(tmp_path), "t.parquet", {"image": [b"x"] * 3, "note": notes})
    work = work_of(source, tmp_path / "out", ["ocr"])
    commit_all(work)
    monkeypatch.setattr(parts, "BYTES_PER_PART", 1_000)
    finalized(work)
    assert table_at(tmp_path / "out", "ocr")["note"].to_pylist() == notes


@pytest.mark.parametrize("limits", [{"BYTES_PER_PIECE": 300}, {"ROWS_PER_PIECE": 2}, {"FILES_PER_PIECE": 1}])
@pytest.mark.parametrize("blocks", ["abcdef", "ab cd ef", "cd ab ef", "fa be dc", "f e d c b a", "ab bc cd de ef fa"])
def test_order_does_not_depend_on_the_blocks_nor_on_the_pieces_it_is_made_in(
    source, tmp_path, monkeypatch, blocks, limits
):
    work = work_of(source, tmp_path / "out")
    rows = dict(zip("abcdef", pending(work), strict=True))
    for block in blocks.split():
        commit(work, *(labelled(work, rows[letter], says=f"{letter} in {block}") for letter in block))
    for name, limit in limits.items():
        monkeypatch.setattr(staged_rows, name, limit)
    finalized(work)
    written = table_at(tmp_path / "out", "qa").select(["image_uri", "question", "answer"]).to_pylist()
    assert [(answer["image_uri"][-5], answer["question"]) for answer in written] == [
        (letter, question) for letter in "abcdef" for question in QUESTIONS["questions"]
    ]
    of_one_attempt = {(answer["image_uri"], answer["answer"]) for answer in written}
    assert len(of_one_attempt) == 6
    finalized(work)  # from the one commit that there is now
    assert table_at(tmp_path / "out", "qa").select(["image_uri", "question", "answer"]).to_pylist() == written


def test_tables_without_rows_are_written_with_their_columns(source, output):
    work = work_of(source, output)
    commit(work, *(row.failed(MISSING) for row in pending(work)))
    finalized(work)
    for table in ("ocr", "qa"):
        assert parts_of(output, table) == ["part-00000-of-00001.parquet"]
        written = table_at(output, table)
        assert written.num_rows == 0
        assert written.schema == table_schema(table)
        assert written.schema.metadata == table_schema(table).metadata


def test_manifest_without_images_makes_empty_tables(source, tmp_path):
    work = work_of(source, tmp_path / "out", limit=0)
    assert finalized(work).quarantined_fraction == 0.0
    assert table_at(tmp_path / "out", "ocr").num_rows == table_at(tmp_path / "out", "quarantine").num_rows == 0


def test_file_of_the_user_in_a_folder_of_a_table_stays(source, output):
    work = work_of(source, output, ["ocr"])
    notes_uri = join_uri(output, "ocr", "notes.md")
    open_store(output).put(notes_uri, b"mine")
    commit_all(work)
    finalized(work)
    assert open_store(output).get(notes_uri) == b"mine"


def facts_of(accounts):
    return {table: facts.as_dict() for table, facts in accounts.tables.items()}


def test_finalizing_again_changes_nothing(source, tmp_path):
    work = work_of(source, tmp_path / "out")
    commit_all(work)
    first = finalized(work)
    written = {path: path.read_bytes() for path in (tmp_path / "out").glob("*/part-*")}
    again = finalized(work)
    assert dataclasses.replace(again, tables={}) == dataclasses.replace(first, tables={})
    assert facts_of(again) == facts_of(first)
    assert written == {path: path.read_bytes() for path in (tmp_path / "out").glob("*/part-*")}


def flags_of(output, table="ocr"):
    return table_at(output, table)["flags"].to_pylist()


def test_text_of_an_earlier_row_is_flagged_in_the_dataset_and_not_in_what_is_staged(source, tmp_path):
    """Row 0 says what row 3 and row 5 say, though it is committed last; a later run takes it away from them."""
    work = work_of(source, tmp_path / "out", ["ocr"])
    said = [
        "The shop is open all day",
        "Closed",
        "Closed",
        "the shop is open ALL day.",
        "Other",
        "The shop is open all day",
    ]
    rows = pending(work)
    for row, text in reversed(list(zip(rows, said, strict=True))):
        commit(work, labelled(work, row, says=text))
    for _ in range(2):  # the second one reads the whole shards that the first one left
        accounts = finalized(work, duplicate_min_chars={"ocr": 10})
        marked = ["duplicate_text" in flags for flags in flags_of(tmp_path / "out")]
        assert marked == [False, False, False, True, False, True]
        assert accounts.num_duplicate_texts == {"ocr": 2}
        assert [(one.text, one.count) for one in accounts.most_repeated["ocr"]] == [("the shop is open ALL day.", 3)]
    finalized(work)
    assert not any("duplicate_text" in flags for flags in flags_of(tmp_path / "out"))


def test_duplicates_are_found_across_shards_and_within_one_recipe_only(source, tmp_path):
    for limit in (2, None):
        work = work_of(source, tmp_path / "out", limit=limit)
    assert len(work.shards) == 2
    commit(work, *(labelled(work, row, says="always the same words") for row in pending(work)))
    accounts = finalized(work, duplicate_min_chars={"qa": 10})
    assert accounts.num_duplicate_texts == {"qa": 15}, "each question's first answer is no duplicate"
    marked = ["duplicate_text" in flags for flags in flags_of(tmp_path / "out", "qa")]
    assert marked == [False] * 3 + [True] * 15
    assert not any("duplicate_text" in flags for flags in flags_of(tmp_path / "out"))
