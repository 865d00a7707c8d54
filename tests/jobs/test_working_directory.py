"""What goes with a job to a cluster: its folder without what git ignores, or what the job names alone; not too much."""

import subprocess
import zipfile
from pathlib import Path

import pytest

from jobs import working_directory
from jobs.job_file import opened_in_its_folder, read_job
from jobs.working_directory import check_locations, files_to_send, pack
from schemas.job import JobSpec
from tests.command import write_job

MINE = """
name: mine
about: What I want to know.
table: captions
parse: helpers/mine.py:parse
steps:
  - prompts: ["Say it."]
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A job with a recipe of its own, which names a function of its own."""
    for name, text in {
        "mine.yaml": MINE,
        "helpers/mine.py": "def parse(text, row):\n    return {'text': text}\n",
        "notes/of/mine.txt": "of no recipe",
        "build/large.bin": "made anew",
        ".env": "SECRET=x",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    write_job(tmp_path, source="s3://b/in", output="s3://b/out", recipes=["mine.yaml"])
    monkeypatch.chdir(tmp_path)
    return tmp_path


def make_checkout(folder: Path, ignored: str) -> None:
    (folder / ".gitignore").write_text(ignored)
    subprocess.run(["git", "init", "-q"], cwd=folder, check=True)


def sent(job: JobSpec | None = None) -> list[str]:
    return files_to_send(Path(), "job.yaml", job or read_job(Path("job.yaml")))


def test_outside_of_a_checkout_only_what_the_job_names_is_sent(folder: Path):
    assert sent() == ["helpers/mine.py", "job.yaml", "mine.yaml"]


def test_of_a_checkout_all_is_sent_that_git_does_not_ignore_and_what_the_job_names_anyway(folder: Path):
    make_checkout(folder, ignored="build/\n.env\nmine.yaml\n")
    assert sent() == [".gitignore", "helpers/mine.py", "job.yaml", "mine.yaml", "notes/of/mine.txt"]


def test_file_that_git_still_tracks_and_that_is_gone_is_not_missed(folder: Path):
    make_checkout(folder, ignored="build/\n.env\n")
    subprocess.run(["git", "add", "notes"], check=True)
    (folder / "notes" / "of" / "mine.txt").unlink()
    assert "notes/of/mine.txt" not in sent()


def test_recipe_above_the_jobs_folder_is_refused(folder: Path):
    (folder / "jobs").mkdir()
    job = write_job(folder / "jobs", source="s3://b/in", output="s3://b/out", recipes=["../mine.yaml"])
    with (
        opened_in_its_folder(job) as opened,
        pytest.raises(ValueError, match=r"\.\./mine\.yaml lies above the job's folder"),
    ):
        files_to_send(Path(), opened.file, opened.job)


def test_too_much_is_refused_by_its_largest_files(folder: Path, monkeypatch: pytest.MonkeyPatch):
    make_checkout(folder, ignored="")
    (folder / "photos.tar").write_bytes(bytes(2_000_000))
    (folder / "small.tar").write_bytes(bytes(1_000_000))
    monkeypatch.setattr(working_directory, "MAX_BYTES", 2_500_000)
    with pytest.raises(
        ValueError, match=r"3\.0 MB .* takes 2\.5 MB: .* photos\.tar \(2\.0 MB\), small\.tar \(1\.0 MB\)"
    ):
        sent()


def test_equal_files_make_equal_archives_whenever_they_were_written(folder: Path, tmp_path: Path):
    (folder / "helpers" / "mine.py").chmod(0o755)
    pack(folder, sent(), tmp_path / "one.zip")
    (folder / "job.yaml").write_bytes((folder / "job.yaml").read_bytes())
    pack(folder, sent(), tmp_path / "two.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "two.zip").read_bytes()
    with zipfile.ZipFile(tmp_path / "one.zip") as archive:
        assert archive.read("mine.yaml").decode() == MINE
        assert archive.getinfo("helpers/mine.py").external_attr >> 16 & 0o111


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"source": "images/*.png"}, None),
        ({"source": "images"}, None),
        ({"source": "./images/"}, None),
        ({"source": "/mnt/photos"}, None),
        ({"source": "image"}, "source.uri is image"),
        ({"source": "../images"}, "source.uri is ../images"),
        ({"source": {"uri": "s3://b/x.parquet", "image_roots": ["photos"]}}, "source.image_roots is photos"),
        ({"checkpoint": "deepseek-ai/deepseek-vl2-tiny"}, None),
        ({"checkpoint": "runs/last"}, "checkpoint is runs/last"),
        ({"checkpoint": "weights"}, "checkpoint is weights"),
        ({"output": "images"}, "output is images"),
    ],
    ids=str,
)
def test_relative_place_is_refused_unless_it_is_sent_along(tmp_path: Path, monkeypatch, values, told):
    (tmp_path / "runs" / "last").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    job = read_job(write_job(tmp_path, **{"source": "s3://b/in", "output": "s3://b/out", "recipes": ["ocr"], **values}))
    if told is None:
        check_locations(job, ["images/a.png", "job.yaml"])
    else:
        with pytest.raises(ValueError, match=told):
            check_locations(job, ["images/a.png", "job.yaml"])
