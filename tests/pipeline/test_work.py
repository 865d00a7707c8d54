import json
import os
import shutil
import sys
from types import SimpleNamespace

import pyarrow as pa
import pytest

from model.checkpoint_files import NANO_FOLDER, sampled_ranges
from model.prompt import Processor
from pipeline import checkpoint_check
from pipeline.http import HttpStore
from pipeline.recipes import load_recipe
from pipeline.recorded_recipes import read_recipes
from pipeline.storage import StorageError, join_uri, open_store
from pipeline.uri_policy import UriPolicy
from schemas.job import load_job
from tests.model.stored_checkpoints import put as put_objects
from tests.model.stored_checkpoints import put_in_parts
from tests.pipeline.asked import put_recipe
from tests.pipeline.outputs import commit_all, files_below, finalized, job_of, names_in, pending, put_images, resolve
from tests.pipeline.tables import put_table

QA = {"name": "qa", "questions": ("Why?",)}


@pytest.fixture
def source(tmp_path):
    return put_images(tmp_path / "photos", "a.jpg", "b.jpg", "notes.txt")


def work_of(source, output, recipes=("ocr",), *, limit=None, **values):
    return resolve(job_of(source, output, recipes, **values), limit=limit)


def pending_names(work):
    return [(row.image_uri.rpartition("/")[2], row.recipes) for row in pending(work)]


def refusal(source, output, recipes=("ocr",), **values) -> str:
    with pytest.raises(ValueError) as caught:
        work_of(source, output, recipes, **values)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_first_run_lists_every_image_of_the_source(source, output):
    work = work_of(source, output, ["ocr", "caption"])
    assert (work.num_images, work.num_new_images, work.num_ignored_files) == (2, 2, 1)
    assert pending_names(work) == [("a.jpg", ("ocr", "caption")), ("b.jpg", ("ocr", "caption"))]
    assert work.tables == ["captions", "ocr"]
    assert work.shards == ("shard-00000.parquet",)


def test_work_names_the_checkpoint_and_its_resolutions(source, tmp_path):
    work = work_of(source, tmp_path / "out")
    name, _, digest = work.checkpoint.partition("@")
    assert (name, len(digest)) == ("nano", 12)
    assert work.candidate_resolutions == Processor.from_checkpoint("nano").config.candidate_resolutions


def nano_at(prefix: str, **others: bytes) -> str:
    return put_objects(prefix, {path.name: path.read_bytes() for path in NANO_FOLDER.iterdir()} | others)


def test_checkpoint_in_a_store_is_the_same_one_and_its_weights_stay_there(source, tmp_path, bucket, monkeypatch):
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "cache"))
    here = work_of(source, tmp_path / "out")
    there = work_of(source, tmp_path / "out", checkpoint=nano_at(f"{bucket}/nano"))
    assert there.checkpoint.rpartition("@")[2] == here.checkpoint.rpartition("@")[2]
    assert there.recipe_digests == here.recipe_digests
    assert not (tmp_path / "cache").exists()


def test_weight_that_changed_in_its_place_is_refused_wherever_it_stands_in_the_file(source, tmp_path, bucket):
    weights = (NANO_FOLDER / "model.safetensors").read_bytes()
    sampled = {place for begin, length in sampled_ranges(len(weights)) for place in range(begin, begin + length)}
    place = next(place for place in range(len(weights) // 2, len(weights)) if place not in sampled)
    changed = weights[:place] + bytes([weights[place] ^ 1]) + weights[place + 1 :]
    work_of(source, tmp_path / "out", checkpoint=nano_at(f"{bucket}/nano"))
    work_of(source, tmp_path / "out", checkpoint=nano_at(f"{bucket}/nano"))
    message = refusal(source, tmp_path / "out", checkpoint=nano_at(f"{bucket}/nano", **{"model.safetensors": changed}))
    assert f"another state of the weight files in {bucket}/nano (written again since" in message


def test_bytes_that_were_uploaded_in_other_parts_go_on_from_another_prefix(source, tmp_path, bucket):
    work_of(source, tmp_path / "out", checkpoint=nano_at(f"{bucket}/nano"))
    weights = (NANO_FOLDER / "model.safetensors").read_bytes()
    for prefix in ("nano", "copy"):
        nano_at(f"{bucket}/{prefix}")
        put_in_parts(f"{bucket}/{prefix}", "model.safetensors", weights)
    assert "another state of the weight files" in refusal(source, tmp_path / "out", checkpoint=f"{bucket}/nano")
    work_of(source, tmp_path / "out", checkpoint=f"{bucket}/copy")


def test_output_of_a_release_that_recorded_no_objects_goes_on(source, tmp_path, bucket):
    uri = nano_at(f"{bucket}/nano")
    work_of(source, tmp_path / "out", checkpoint=uri)
    run_file = tmp_path / "out" / "_run" / "run.json"
    run = json.loads(run_file.read_text())
    del run["identity"]["checkpoint objects"]
    run_file.write_text(json.dumps(run))
    work_of(source, tmp_path / "out", checkpoint=uri)


def test_job_is_kept_beside_its_run(source, output):
    job = job_of(source, output, ["ocr", QA])
    resolve(job)
    named = tuple(recipe.model_copy(update={"id": recipe.name}) for recipe in job.recipes)
    kept = load_job(open_store(output).get(join_uri(output, "_run", "job.yaml")).decode())
    assert kept == job.model_copy(update={"recipes": named})


def test_recipes_are_kept_beside_their_run_as_their_files_stand(source, output, tmp_path):
    (tmp_path / "mine.py").write_text("def columns(text, asked): return {}\n")
    mine = put_recipe(tmp_path, "# mine\nparse: mine.py:columns\nsteps: [{prompts: [It.]}]")
    recipes = [{"name": "caption", "id": "short", "style": "short", "hints": ("ocr",)}, mine]
    job = job_of(source, output, recipes)
    work = resolve(job)
    kept = {name: open_store(output).get(join_uri(output, "_run", "recipes", name)).decode() for name in KEPT}
    assert sorted(files_below(join_uri(output, "_run", "recipes"))) == sorted(KEPT)
    assert kept["short.yaml"] == load_recipe("caption").text
    assert kept["ocr.yaml"] == load_recipe("ocr").text, "it runs for the caption"
    assert kept["mine.yaml"] == (tmp_path / "mine.yaml").read_text()
    assert kept["mine.py"] == (tmp_path / "mine.py").read_text()
    recorded = read_recipes(work.folder, kept_job(output))
    assert {name: recipe.file.name for name, recipe in recorded.items()} == {"short": "caption", "mine": "mine"}


KEPT = ("short.yaml", "ocr.yaml", "mine.yaml", "mine.py")


def kept_job(output):
    return load_job(open_store(output).get(join_uri(output, "_run", "job.yaml")).decode())


def test_recipe_file_means_the_same_in_every_folder_and_its_id_is_kept(source, tmp_path, monkeypatch):
    put_recipe(tmp_path, "steps: [{prompts: [It.]}]")
    monkeypatch.chdir(tmp_path)
    commit_all(work_of(source, "out", ["mine.yaml", {"name": "mine.yaml", "id": "again", "seed": 1}]))
    monkeypatch.chdir("/")
    kept = kept_job(f"{tmp_path}/out")
    assert [(recipe.name, recipe.id) for recipe in kept.recipes] == [
        (f"{tmp_path}/mine.yaml", "mine"),
        (f"{tmp_path}/mine.yaml", "again"),
    ]
    assert pending(resolve(kept)) == []


def test_prompt_that_changed_is_refused_by_the_name_of_its_recipe_and_a_comment_is_nothing(source, tmp_path):
    mine = put_recipe(tmp_path, "steps: [{prompts: [It.]}]")
    commit_all(work_of(source, tmp_path / "out", ["ocr", mine]))
    put_recipe(tmp_path, "# better words\nsteps:\n- prompts:\n  - It.")
    assert pending(work_of(source, tmp_path / "out", ["ocr", mine])) == []
    put_recipe(tmp_path, "steps: [{prompts: [It is.]}]")
    assert "another recipe mine:" in refusal(source, tmp_path / "out", ["ocr", mine])


def test_recipe_that_runs_for_another_one_is_not_written(source, tmp_path):
    work = work_of(source, tmp_path / "out", [{"name": "caption", "hints": ("ocr",)}])
    assert [recipe.name for recipe in work.recipes] == ["ocr", "caption"]
    assert (work.tables, list(work.recipe_digests)) == (["captions"], ["caption"])
    assert pending_names(work) == [("a.jpg", ("caption",)), ("b.jpg", ("caption",))]
    commit_all(work)
    assert finalized(work).num_rows == {"captions": 2, "quarantine": 0}


def test_recipe_that_ran_for_another_one_may_be_added(source, tmp_path):
    commit_all(work_of(source, tmp_path / "out", [{"name": "caption", "hints": ("ocr",)}]))
    work = work_of(source, tmp_path / "out", ["ocr", {"name": "caption", "hints": ("ocr",)}])
    assert pending_names(work) == [("a.jpg", ("ocr",)), ("b.jpg", ("ocr",))]


def test_rerun_of_a_finished_job_has_nothing_to_do(source, output):
    commit_all(work_of(source, output))
    again = work_of(source, output)
    assert (again.num_images, again.num_new_images, pending(again)) == (2, 0, [])
    assert len(again.shards) == 1


def test_images_that_were_added_are_the_only_ones_to_do(source, output):
    commit_all(work_of(source, output))
    put_images(source, "Aa.jpg", "c.jpg")
    again = work_of(source, output)
    assert (again.num_images, again.num_new_images) == (4, 2)
    assert pending_names(again) == [("Aa.jpg", ("ocr",)), ("c.jpg", ("ocr",))]


def test_recipe_that_was_added_is_the_only_one_to_do(source, output):
    commit_all(work_of(source, output))
    again = work_of(source, output, ["ocr", QA])
    assert again.num_new_images == 0
    assert pending_names(again) == [("a.jpg", ("qa",)), ("b.jpg", ("qa",))]


def test_images_and_a_recipe_are_added_at_once(source, output):
    commit_all(work_of(source, output))
    put_images(source, "c.jpg")
    work = work_of(source, output, ["ocr", QA])
    assert pending_names(work) == [("a.jpg", ("qa",)), ("b.jpg", ("qa",)), ("c.jpg", ("ocr", "qa"))]
    commit_all(work)
    assert finalized(work).num_rows == {"ocr": 3, "qa": 3, "quarantine": 0}


def test_run_that_was_cut_off_goes_on_with_the_rest(source, output):
    commit_all(work_of(source, output))
    put_images(source, "c.jpg", "d.jpg")
    work_of(source, output)  # lists c and d, and dies
    work = work_of(source, output)
    assert pending_names(work) == [("c.jpg", ("ocr",)), ("d.jpg", ("ocr",))]


def test_manifest_that_was_cut_off_is_written_anew(source, output):
    work_of(source, output)
    store = open_store(output)
    store.delete(join_uri(output, "_run", "run.json"))
    store.put(join_uri(output, "_run", "manifest", "shard-00000.parquet"), b"half a file")
    assert work_of(source, output).num_images == 2


def test_image_that_changed_is_a_new_input_and_the_old_labels_stay(source, tmp_path):
    commit_all(work_of(source, tmp_path / "out"))
    (tmp_path / "photos" / "a.jpg").write_bytes(b"other bytes")
    work = work_of(source, tmp_path / "out")
    assert pending_names(work) == [("a.jpg", ("ocr",))]
    commit_all(work)
    finalized(work)
    assert names_in(tmp_path / "out", "ocr") == ["a.jpg", "b.jpg", "a.jpg"]


def test_image_that_is_gone_stays_an_input(source, tmp_path):
    commit_all(work_of(source, tmp_path / "out"))
    (tmp_path / "photos" / "a.jpg").unlink()
    work = work_of(source, tmp_path / "out")
    assert (work.num_images, pending(work)) == (2, [])


@pytest.mark.parametrize(
    ("limits", "num_images"),
    [((1,), 1), ((1, 2), 2), ((1, None), 3), ((2, 1), 2), ((1, 1, 1), 1), ((0, 99), 3), ((None, 1), 3)],
    ids=str,
)
def test_limit_counts_the_images_of_earlier_runs(tmp_path, limits, num_images):
    source = put_images(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg")
    for limit in limits:
        work = work_of(source, tmp_path / "out", limit=limit)
    assert work.num_images == len(pending(work)) == num_images
    assert [name for name, _ in pending_names(work)] == ["a.jpg", "b.jpg", "c.jpg"][:num_images]


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"recipes": ["ocr"]}, "recipe qa (removed)"),
        ({"recipes": [{"name": "ocr", "max_new_tokens": 5}, QA]}, "another recipe ocr:"),
        ({"recipes": ["ocr", {**QA, "questions": ("Why not?",)}]}, "another recipe qa:"),
        ({"recipes": [{"name": "ocr", "seed": 1}]}, "another recipe ocr, recipe qa (removed):"),
        ({"source": {"format": "images"}}, "another source:"),
    ],
    ids=["removed", "parameter", "question", "several", "source"],
)
def test_change_that_does_more_than_add_is_refused_by_name(source, tmp_path, change, named):
    work_of(source, tmp_path / "out", ["ocr", QA])
    before = (tmp_path / "out" / "_run" / "run.json").read_bytes()
    changed_source = {"uri": source, **change["source"]} if "source" in change else source
    message = refusal(changed_source, tmp_path / "out", change.get("recipes", ["ocr", QA]))
    assert named in message
    assert "choose another output, or undo the change" in message
    assert (tmp_path / "out" / "_run" / "run.json").read_bytes() == before


def test_what_tables_are_trusted_with_may_change_and_old_outputs_know_nothing_of_it(tmp_path):
    table = put_table(str(tmp_path / "tables"), "t.parquet", {"image_uri": ["a.jpg", "/elsewhere/b.jpg"]})
    work = work_of(table, tmp_path / "out")
    assert work.uri_policy == UriPolicy(roots=(f"{tmp_path}/tables",))
    identity = json.loads((tmp_path / "out" / "_run" / "run.json").read_text())["identity"]
    assert identity["source"] == {"uri": table, "format": "auto", "image_column": None, "carry": None}
    trusting = {"uri": table, "image_roots": ("/elsewhere", str(tmp_path)), "allow_http": True}
    work = work_of(trusting, tmp_path / "out")
    assert (work.num_images, work.num_new_images) == (2, 0)
    assert work.uri_policy == UriPolicy(roots=("/elsewhere", str(tmp_path)), http=HttpStore())


def test_relative_roots_mean_the_same_to_whoever_reads_the_kept_job(tmp_path, monkeypatch):
    put_table(str(tmp_path / "tables"), "t.parquet", {"image_uri": ["a.jpg"]})
    monkeypatch.chdir(tmp_path)
    work_of({"uri": "tables", "image_roots": ("photos", "s3://bucket/x/")}, "out")
    monkeypatch.chdir("/")
    kept = load_job((tmp_path / "out" / "_run" / "job.yaml").read_text())
    assert kept.source.image_roots == (f"{tmp_path}/photos", "s3://bucket/x")
    (row,) = pending(work_of(kept.source.model_dump(), tmp_path / "out"))
    assert row.image_uri == f"{tmp_path}/tables/a.jpg"


def test_another_checkpoint_is_refused(source, tmp_path):
    work_of(source, tmp_path / "out")
    copy = shutil.copytree(NANO_FOLDER, tmp_path / "checkpoint")
    work_of(source, tmp_path / "out", checkpoint=str(copy))  # the same bytes elsewhere are the same checkpoint
    with (copy / "model.safetensors").open("r+b") as weights:
        weights.seek(-1, os.SEEK_END)
        weights.write(b"\x55")
    assert "another checkpoint digest" in refusal(source, tmp_path / "out", checkpoint=str(copy))


def test_order_of_the_recipes_and_spelling_of_the_source_may_change(source, tmp_path, monkeypatch):
    commit_all(work_of(source, tmp_path / "out", ["ocr", QA]))
    monkeypatch.chdir(tmp_path)
    assert pending(work_of("./photos/", "out/", [QA, "ocr"])) == []


def test_same_relative_source_in_another_folder_is_another_source(tmp_path, monkeypatch):
    for folder in ("one", "two"):
        put_images(tmp_path / folder / "photos", f"{folder}.jpg")
    monkeypatch.chdir(tmp_path / "one")
    work_of("photos", tmp_path / "out")
    monkeypatch.chdir(tmp_path / "two")
    assert "another source" in refusal("photos", tmp_path / "out")


def table_of(tmp_path, name="t.parquet", **columns):
    questions = pa.array([["Why?"], ["How?"]], pa.list_(pa.string()))
    return put_table(str(tmp_path / "tables"), name, {"image": [b"x", b"y"], "q": questions, **columns})


def test_recipe_that_reads_a_column_nobody_listed_is_refused(tmp_path):
    """The images listed before know nothing of it: they would be skipped without a word."""
    source = table_of(tmp_path)
    commit_all(work_of(source, tmp_path / "out"))
    message = refusal(source, tmp_path / "out", ["ocr", {"name": "qa", "questions_from": "q"}])
    assert "column of questions (none then, q now)" in message


def test_tables_with_other_columns_than_before_are_refused(tmp_path):
    """Labels of both runs make one table, so they must carry the same columns along."""
    table_of(tmp_path)
    commit_all(work_of(tmp_path / "tables", tmp_path / "out"))
    table_of(tmp_path, note=["m", "n"])
    assert "another columns carried along" in refusal(tmp_path / "tables", tmp_path / "out")


def test_two_columns_that_would_be_carried_under_one_name_are_refused(tmp_path):
    source = table_of(tmp_path, caption=["m", "n"], source_caption=["o", "p"])
    assert "'caption' and 'source_caption' would both be carried along" in refusal(source, tmp_path / "out")
    work_of({"uri": source, "carry": ("caption",)}, tmp_path / "out")


@pytest.mark.parametrize("name", ["README.md", "captions/mine.parquet", "quarantine/notes.txt"])
def test_output_that_holds_files_of_the_user_is_refused(source, output, name):
    open_store(output).put(join_uri(output, name), b"mine")
    assert name in refusal(source, output)
    assert open_store(output).get(join_uri(output, name)) == b"mine"


def test_files_beside_what_a_run_writes_are_no_hindrance(source, output):
    open_store(output).put(join_uri(output, "plots", "mine.png"), b"mine")
    assert work_of(source, output).num_images == 2


@pytest.mark.parametrize("where", ["photos", "photos/labels", "."])
@pytest.mark.parametrize("uri", ["photos", "photos/**"])
def test_output_inside_the_source_is_never_an_input(tmp_path, monkeypatch, where, uri):
    put_images(tmp_path / "photos", "a.jpg", "z/b.jpg")
    monkeypatch.chdir(tmp_path)
    work = work_of(uri, where)
    commit_all(work)
    finalized(work)
    open_store(where).put(join_uri(where, "README.md"), b"the card")
    put_images(tmp_path / "photos", "c.jpg")
    again = work_of(uri, where)
    assert pending_names(again) == [("c.jpg", ("ocr",))]
    assert again.num_images == 3


def test_output_inside_a_source_of_tables_is_never_an_input(bucket):
    put_table(f"{bucket}/tables", "t.parquet", {"image_uri": ["a.jpg"]})
    work = work_of(f"{bucket}/tables", f"{bucket}/tables/labels")
    commit_all(work)
    finalized(work)
    assert work_of(f"{bucket}/tables", f"{bucket}/tables/labels").num_images == 1


def test_output_that_cannot_be_written_is_named(source, tmp_path):
    (tmp_path / "file").write_text("in the way")
    assert f"cannot write to {tmp_path}/file/out" in refusal(source, tmp_path / "file" / "out")


def test_bucket_that_does_not_exist_is_named(source, bucket):
    assert f"cannot write to {bucket}-typo/out" in refusal(source, f"{bucket}-typo/out")


@pytest.mark.parametrize("checkpoint", ["nowhere/at/all", "/nowhere"])
def test_missing_checkpoint_is_named_and_nothing_is_listed(source, tmp_path, checkpoint):
    assert checkpoint in refusal(source, tmp_path / "out", checkpoint=checkpoint)
    assert not (tmp_path / "out" / "_run").exists()


def test_source_without_images_is_named_and_nothing_is_listed(tmp_path):
    (tmp_path / "empty").mkdir()
    assert "no image" in refusal(tmp_path / "empty", tmp_path / "out")
    assert not (tmp_path / "out" / "_run").exists()


def test_source_that_is_gone_is_named(tmp_path):
    with pytest.raises(StorageError, match="nowhere"):
        work_of(tmp_path / "nowhere", tmp_path / "out")


@pytest.mark.parametrize("torch_is_here", [True, False])
def test_checkpoint_is_checked_in_the_same_words_here_and_in_a_child(tmp_path, monkeypatch, torch_is_here):
    shutil.copytree(NANO_FOLDER, tmp_path / "damaged")
    (tmp_path / "damaged" / "model.safetensors").write_bytes(b"\xff" * 100)
    modules = (
        {**sys.modules, "torch": None} if torch_is_here else {n: m for n, m in sys.modules.items() if n != "torch"}
    )
    monkeypatch.setattr(
        checkpoint_check, "sys", SimpleNamespace(modules=modules, executable=sys.executable, path=sys.path)
    )
    checkpoint_check.check_checkpoint(NANO_FOLDER)
    with pytest.raises(ValueError, match=r"damaged.*model\.safetensors") as told:
        checkpoint_check.check_checkpoint(tmp_path / "damaged")
    assert "\n" not in str(told.value)
