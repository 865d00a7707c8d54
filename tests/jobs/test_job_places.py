"""What a job file names relatively is found from its folder, whichever folder a command is run in."""

from pathlib import Path

import pytest

from jobs.job_file import opened_in_its_folder, opened_job
from pipeline.storage import canonical_uri
from schemas.job import JobError, JobSpec
from tests.command import assert_one_clear_line, labelmill_here, write_job
from tests.pipeline.outputs import put_images

MINE = """
name: mine
about: What I want to know.
table: captions
steps:
  - prompts: ["Say it."]
"""


@pytest.fixture
def job(tmp_path: Path) -> Path:
    """Of a folder with images, a checkpoint and a recipe of its own."""
    folder = tmp_path / "home" / "jobs"
    put_images(folder / "photos", "a.jpg")
    (folder / "models" / "tiny").mkdir(parents=True)
    (folder / "mine.yaml").write_text(MINE)
    return write_job(
        folder,
        source={"uri": "photos/*.jpg", "image_root": "photos", "image_roots": ["../more", "s3://b/in", "/data"]},
        checkpoint="models/tiny",
        recipes=["ocr", "./mine.yaml"],
        output="labels",
    )


def places(job: JobSpec) -> list[str]:
    source = job.source
    roots = source.image_roots or ()
    given = [source.uri, source.image_root or "", *roots, job.checkpoint, job.recipes[1].name, job.output.uri]
    return [canonical_uri(place) for place in given]


@pytest.mark.parametrize("elsewhere", [".", "home", "home/jobs", "home/jobs/photos", "/"])
def test_places_of_a_job_are_the_same_from_every_folder(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, elsewhere: str
):
    monkeypatch.chdir(tmp_path / elsewhere)
    folder = job.parent
    found = places(opened_job(job))
    inside = ["photos/*.jpg", "photos"], ["models/tiny", "mine.yaml", "labels"]
    assert found == [
        *(str(folder / name) for name in inside[0]),
        str(tmp_path / "home" / "more"),
        "s3://b/in",
        "/data",
        *(str(folder / name) for name in inside[1]),
    ]


def test_path_of_the_job_file_may_be_relative_too(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    assert places(opened_job(job.relative_to(tmp_path))) == places(opened_job(job))
    assert opened_job(job.relative_to(tmp_path)).output.uri == "home/jobs/labels"
    monkeypatch.chdir(job.parent)
    assert opened_job(Path(job.name)).recipes[1].name == "./mine.yaml", "spelled as in the file"


def test_names_that_are_no_paths_stay_what_they_are(tmp_path: Path):
    for checkpoint in ("nano", "deepseek-ai/deepseek-vl2-tiny", "s3://b/tiny", "/models/tiny", "~/tiny"):
        job = write_job(tmp_path, source="s3://b/in", checkpoint=checkpoint, recipes=["ocr"], output="s3://b/out")
        opened = opened_job(job)
        assert (opened.checkpoint, opened.recipes[0].name) == (checkpoint, "ocr")
        assert (opened.source.uri, opened.output.uri) == ("s3://b/in", "s3://b/out")


def test_overrides_start_from_the_current_directory(job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    overrides = ["source.uri=mine", "output=out", "recipes.1=home/jobs/mine.yaml", "checkpoint=./tiny"]
    opened = opened_job(job, overrides)
    assert [canonical_uri(opened.source.uri), canonical_uri(opened.output.uri)] == [
        str(tmp_path / "mine"),
        str(tmp_path / "out"),
    ]
    assert (opened.recipes[1].name, opened.checkpoint) == ("home/jobs/mine.yaml", "./tiny")


def test_overrides_of_a_run_elsewhere_mean_there_what_they_mean_here(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    given = ["source.uri=home/jobs/photos", "source.image_roots=[home, /data]", "recipes.1=home/jobs/mine.yaml"]
    with opened_in_its_folder(job, [*given, "engine.dtype=float32"]) as opened:
        assert Path.cwd() == job.parent
        in_its_folder = [canonical_uri(opened.job.source.uri), *map(canonical_uri, opened.job.source.image_roots or ())]
    assert in_its_folder == [str(job.parent / "photos"), str(tmp_path / "home"), "/data"]
    assert list(opened.overrides) == [
        'source.uri="photos"',
        'source.image_roots=["..", "/data"]',
        'recipes.1="mine.yaml"',
        "engine.dtype=float32",
    ]
    monkeypatch.chdir(job.parent)
    with opened_in_its_folder(Path(job.name), ["source.uri=./photos"]) as opened:
        assert list(opened.overrides) == ["source.uri=./photos"]


def test_mistakes_in_an_override_of_a_run_elsewhere_are_told(job: Path):
    with pytest.raises(JobError, match="the form path=value"), opened_in_its_folder(job, ["engine.dtype"]):
        pass


def test_run_and_plan_look_for_the_source_beside_the_job_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "jobs").mkdir()
    job = write_job(tmp_path / "jobs", source="nothing", recipes=["ocr"], output="labels")
    put_images(tmp_path / "nothing", "a.jpg")
    monkeypatch.chdir(tmp_path)
    for verb in ("run", "plan"):
        assert_one_clear_line(labelmill_here(verb, job), str(tmp_path / "jobs" / "nothing"))
    assert not (tmp_path / "labels").exists()


def test_submit_takes_along_what_an_override_names_in_the_job_s_folder_and_no_more(
    job: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mine.yaml").write_text(MINE)
    submit = ("submit", job, "--address", "http://127.0.0.1:9", "--set")
    assert_one_clear_line(labelmill_here(*submit, "recipes.1=mine.yaml"), "../../mine.yaml lies above the job's folder")
    assert_one_clear_line(labelmill_here(*submit, "recipes.1=home/jobs/mine.yaml"), "source.uri is photos/*.jpg")


def test_manifest_carries_overrides_as_the_job_s_folder_has_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "jobs").mkdir()
    job = write_job(tmp_path / "jobs", source="s3://b/in", recipes=["ocr"], output="s3://b/out")
    (tmp_path / "jobs" / "mine.yaml").write_text(MINE)
    monkeypatch.chdir(tmp_path)
    done = labelmill_here("manifest", job, "--set", "recipes.0=jobs/mine.yaml")
    assert done.code == 0, done
    assert "about: What I want to know." in done.stdout, "the recipe file goes along"
    assert 'recipes.0="mine.yaml"' in done.stdout
