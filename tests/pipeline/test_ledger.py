import pytest

from pipeline.commits import LABELLED, QUARANTINED, SKIPPED, Commit, Outcome, outcome_table
from pipeline.ledger import RunFolder
from pipeline.manifest import write_manifest
from pipeline.pending import Wanted
from pipeline.settled import settle
from pipeline.storage import join_uri, open_store
from schemas.errors import ErrorKind
from tests.pipeline.outputs import files_below, put_images
from tests.pipeline.tables import put_table, source_at

SHARD, OTHER_SHARD = "shard-00000.parquet", "shard-00001.parquet"
DIGESTS = {"ocr": "o1", "caption": "c1"}


@pytest.fixture(params=["local", "s3"])
def folder(request, tmp_path):
    """A run folder whose manifest lists a.jpg and b.jpg in the first shard and c.jpg in the second."""
    output_uri = request.getfixturevalue("bucket") + "/out" if request.param == "s3" else str(tmp_path / "out")
    source = source_at(put_images(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg"))
    folder = RunFolder(output_uri)
    write_manifest(source, folder.manifest_uri, limit=None, rows_per_shard=2)
    return folder


def sample_ids(folder, shard=SHARD):
    rows = [row for rows in folder.pending(shard, Wanted(recipe_digests=DIGESTS)) for row in rows]
    return {row.image_uri.rpartition("/")[2]: row.sample_id for row in rows}


def outcome(sample_id, recipe, *, status=LABELLED, num_rows=1, **how):
    return Outcome(sample_id=sample_id, recipe=recipe, status=status, num_rows=num_rows, **how)


def commit(folder, name, *outcomes, shard=SHARD, digests=DIGESTS):
    folder.put_commit(shard, name, Commit(files={}, recipe_digests=digests, outcomes=outcome_table(outcomes)))


def failed(sample_id, kind, **how):
    return outcome(sample_id, "ocr", status=QUARANTINED, error_kind=str(kind), **how)


def pending(folder, shard=SHARD, digests=DIGESTS, **wanted):
    return [
        (row.image_uri.rpartition("/")[2], row.recipes)
        for rows in folder.pending(shard, Wanted(recipe_digests=digests, **wanted))
        for row in rows
    ]


def test_everything_is_pending_before_the_first_commit(folder):
    assert pending(folder) == [("a.jpg", ("ocr", "caption")), ("b.jpg", ("ocr", "caption"))]
    assert pending(folder, OTHER_SHARD) == [("c.jpg", ("ocr", "caption"))]


def test_pending_row_knows_its_shard(folder):
    ((row,),) = folder.pending(OTHER_SHARD, Wanted(recipe_digests=DIGESTS))
    assert row.manifest_shard == OTHER_SHARD
    assert row.labels == row.recipe_errors == ()


@pytest.mark.parametrize("status", [LABELLED, QUARANTINED, SKIPPED])
def test_pair_that_ended_in_any_way_is_pending_no_more(folder, status):
    a = sample_ids(folder)["a.jpg"]
    commit(folder, "one", outcome(a, "ocr", status=status))
    assert pending(folder) == [("a.jpg", ("caption",)), ("b.jpg", ("ocr", "caption"))]


def test_image_without_pending_recipes_is_left_out(folder):
    ids = sample_ids(folder)
    commit(folder, "one", outcome(ids["a.jpg"], "ocr"))
    commit(folder, "two", outcome(ids["a.jpg"], "caption"))
    assert pending(folder) == [("b.jpg", ("ocr", "caption"))]
    blocks = folder.pending(SHARD, Wanted(recipe_digests=DIGESTS), batch_rows=1)
    assert [[row.image_uri.rpartition("/")[2] for row in rows] for rows in blocks] == [["b.jpg"]]


def test_recipe_committed_under_another_digest_is_pending_again(folder):
    a = sample_ids(folder)["a.jpg"]
    commit(folder, "one", outcome(a, "ocr"), outcome(a, "caption"), digests={**DIGESTS, "ocr": "o0"})
    assert pending(folder)[0] == ("a.jpg", ("ocr",))


def test_recipe_that_is_added_is_pending_for_every_image(folder):
    ids = sample_ids(folder)
    commit(folder, "one", *(outcome(id_, recipe) for id_ in ids.values() for recipe in DIGESTS))
    assert pending(folder) == []
    assert pending(folder, digests={**DIGESTS, "qa": "q1"}) == [("a.jpg", ("qa",)), ("b.jpg", ("qa",))]


def test_recipe_that_the_job_lacks_does_not_matter(folder):
    commit(folder, "one", outcome(sample_ids(folder)["a.jpg"], "ocr"))
    assert pending(folder, digests={"caption": "c1"}) == [("a.jpg", ("caption",)), ("b.jpg", ("caption",))]


def test_commits_of_another_shard_are_not_read(folder):
    commit(folder, "one", outcome(sample_ids(folder, OTHER_SHARD)["c.jpg"], "ocr"), shard=OTHER_SHARD)
    assert len(pending(folder)) == 2
    assert pending(folder, OTHER_SHARD) == [("c.jpg", ("caption",))]
    assert list(folder.commits(SHARD)) == []


def test_commits_come_back_as_they_were_in_the_order_of_their_names(folder):
    first = Commit(
        files={"ocr": "n1"}, recipe_digests=DIGESTS, outcomes=outcome_table([outcome("a", "ocr", num_rows=3, run=7)])
    )
    second = Commit(files={"ocr": "n2", "quarantine": "n2"}, recipe_digests={}, outcomes=outcome_table([]))
    folder.put_commit(SHARD, "n2", second)
    folder.put_commit(SHARD, "n1", first)
    assert list(folder.commits(SHARD)) == [first, second]


def test_commit_of_the_same_name_replaces_the_earlier_one(folder):
    commit(folder, "one", outcome("a", "ocr"))
    commit(folder, "one", outcome("b", "ocr"))
    assert [entry.outcomes["sample_id"].to_pylist() for entry in folder.commits(SHARD)] == [["b"]]


def test_commit_of_a_whole_shard_says_what_those_of_its_blocks_said(folder):
    outcomes = outcome_table([outcome("a", "ocr", num_rows=3, run=7), failed("b", ErrorKind.MISSING, attempts=2)])
    whole = Commit(files={"ocr": "n"}, recipe_digests=DIGESTS, outcomes=outcomes)
    folder.put_whole_commit(SHARD, "n", whole)
    assert list(folder.commits(SHARD)) == [whole]
    folder.put_whole_commit(OTHER_SHARD, "n", Commit(files={}, recipe_digests=DIGESTS, outcomes=outcome_table([])))
    assert [commit.outcomes.num_rows for commit in folder.commits(OTHER_SHARD)] == [0]


def test_file_among_the_commits_that_is_none_is_passed_over(folder):
    open_store(folder.uri).put(join_uri(folder.commits_uri(SHARD), "notes.txt"), b"hello")
    commit(folder, "one")
    assert len(list(folder.commits(SHARD))) == 1


def test_pair_that_failed_for_a_reason_that_passes_is_pending_in_the_next_run_alone(folder):
    ids = sample_ids(folder)
    busy, gone = (
        failed(ids["a.jpg"], ErrorKind.STORE_UNAVAILABLE, run=3),
        failed(ids["b.jpg"], ErrorKind.MISSING, run=3),
    )
    commit(folder, "one", busy, gone)
    assert pending(folder, digests={"ocr": "o1"}, run=3) == []
    assert pending(folder, digests={"ocr": "o1"}, run=4) == [("a.jpg", ("ocr",))]


def test_kinds_of_errors_to_try_again_may_be_named(folder):
    ids = sample_ids(folder)
    commit(folder, "one", failed(ids["a.jpg"], ErrorKind.STORE_UNAVAILABLE), failed(ids["b.jpg"], ErrorKind.MISSING))
    assert pending(folder, digests={"ocr": "o1"}, retried_kinds=frozenset({"missing"})) == [("b.jpg", ("ocr",))]
    assert pending(folder, digests={"ocr": "o1"}, retried_kinds=frozenset()) == []


def test_row_that_is_tried_again_knows_how_often_it_was(folder):
    a = sample_ids(folder)["a.jpg"]
    commit(folder, "one", failed(a, ErrorKind.ENGINE_ERROR, attempts=2))
    rows = [row for rows in folder.pending(SHARD, Wanted(recipe_digests={"ocr": "o1"})) for row in rows]
    assert [row.num_earlier_attempts for row in rows] == [2, 0]


@pytest.mark.parametrize(
    ("first", "second", "counts"),
    [
        (outcome("a", "ocr", run=2), failed("a", ErrorKind.MISSING, run=3), (LABELLED, 2)),
        (failed("a", ErrorKind.MISSING, run=2), outcome("a", "ocr", run=1), (LABELLED, 1)),
        (outcome("a", "ocr", run=2), outcome("a", "ocr", run=3), (LABELLED, 2)),
        (failed("a", ErrorKind.MISSING, run=2), failed("a", ErrorKind.EMPTY, run=3), (QUARANTINED, 3)),
    ],
)
def test_of_two_outcomes_labels_count_before_failures_then_early_labels_and_late_failures(first, second, counts):
    commits = [Commit(files={}, recipe_digests=DIGESTS, outcomes=outcome_table([one])) for one in (first, second)]
    for order in (commits, commits[::-1]):
        (found,) = settle(order, DIGESTS).outcomes.to_pylist()
        assert (found["status"], found["run"]) == counts


def test_json_file_is_none_until_it_is_written(folder):
    assert folder.get_json("run.json") is None
    folder.put_json("run.json", {"name": "écran", "shards": [SHARD]})
    assert folder.get_json("run.json") == {"name": "écran", "shards": [SHARD]}


def test_names_of_an_output_are_these(folder):
    """Readers, and outputs of earlier versions, depend on them."""
    commit(folder, "abc")
    assert files_below(folder.uri) == [
        "commits/shard-00000/abc.json",
        "manifest/shard-00000.parquet",
        "manifest/shard-00001.parquet",
    ]
    assert folder.staged_uri("qa", "abc") == f"{folder.output_uri}/_run/staged/qa/abc.parquet"


def test_pending_row_has_what_the_source_said_about_it(tmp_path):
    table = put_table(str(tmp_path), "t.parquet", {"image": [b"x"], "q": [["Why?"]], "note": ["n"]})
    folder = RunFolder(str(tmp_path / "out"))
    write_manifest(source_at(table, columns={"questions": "q"}), folder.manifest_uri, limit=None)
    ((row,),) = folder.pending(SHARD, Wanted(recipe_digests=DIGESTS))
    assert row.questions == ("Why?",)
    assert row.carried
