"""The same job every night, on a source that changes: what is labelled, what is marked, and what is kept.

Runs are whole ones but for the cluster: in its place all that is pending is committed here, with scripted labels.
"""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline import run as runs
from pipeline.exports.export import export
from pipeline.ledger import RunFolder
from pipeline.run import run_job
from pipeline.status import status
from pipeline.storage import open_store
from pipeline.verify import verify
from pipeline.versions import dataset_uri
from pipeline.whole_shards import Finalized
from schemas.job import OutputSpec
from tests.pipeline.outputs import commit, files_below, job_of, labelled, pending, put_images, table_at

KEPT = 3


@dataclasses.dataclass
class Nights:
    """A job, its source, and what was labelled last night."""

    source: str
    output: str
    keep_versions: int | None = KEPT
    labelled: list[str] = dataclasses.field(default_factory=list)

    def run(self, **how) -> dict:
        self.labelled = []
        output = OutputSpec(uri=self.output, keep_versions=self.keep_versions)
        return run_job(job_of(self.source, self.output).model_copy(update={"output": output}), **how)

    def put(self, *names: str, says: str = "") -> None:
        for name in names:
            open_store(self.source).put(f"{self.source}/{name}", f"{name}{says}".encode())

    def remove(self, name: str) -> None:
        open_store(self.source).delete(f"{self.source}/{name}")

    def hide(self, name: str) -> Callable[[], object]:
        """Takes an image away; gives what brings the very same one back, with its time."""
        uri = f"{self.source}/{name}"
        if self.source.startswith("s3://"):
            data = open_store(uri).get(uri)
            open_store(uri).delete(uri)
            return lambda: open_store(uri).put(uri, data)
        aside = Path(self.source).with_name(f"aside-{name}")
        Path(uri).rename(aside)
        return lambda: aside.rename(uri)

    def label(self, work, shards, lease, progress, deadline, on_progress) -> str:
        """In the place of the cluster."""
        for row in pending(work):
            name = row.image_uri.rpartition("/")[2]
            self.labelled.append(name)
            progress.add({key: value[0] for key, value in commit(work, labelled(work, row)).items()})
        return ""

    @property
    def versions(self) -> list[str]:
        return sorted({name.split("/")[1] for name in files_below(self.output) if name.startswith("versions/")})

    @property
    def latest(self) -> str:
        return open_store(self.output).get(f"{self.output}/LATEST").decode().strip()

    def states(self) -> dict[str, str]:
        """By image, of the newest dataset; an image that has changed is there twice."""
        rows = table_at(dataset_uri(RunFolder(self.output)), "ocr").to_pylist()
        return {
            row["image_uri"].rpartition("/")[2] + ("" if row["source_state"] == "present" else " (old)"): row[
                "source_state"
            ]
            for row in rows
        }


@pytest.fixture(params=["local", "s3"])
def nights(request, tmp_path: Path, monkeypatch) -> Nights:
    root = str(tmp_path) if request.param == "local" else request.getfixturevalue("bucket")
    found = Nights(source=f"{root}/in", output=f"{root}/out")
    monkeypatch.setattr(runs, "_label", found.label)
    put_images(found.source, *(f"{index:02d}.jpg" for index in range(20)))
    return found


def strangers(output: str) -> list[str]:
    """Files below an output that nothing names: no commit, not what was finalized, and no run's own files."""
    finalized = Finalized.read(RunFolder(output))
    assert finalized is not None
    named = {f"versions/{version}" for version in finalized.versions}
    whole = {commit.commit.removesuffix(".parquet") for commit in finalized.shards.values()}
    known = {"LATEST", "_run/run.json", "_run/job.yaml", "_run/summary.json", "_run/finalized.json"}
    left = []
    for name in files_below(output):
        folders = name.split("/")
        stem = folders[-1].rpartition(".")[0]
        if name in known or "/".join(folders[:2]) in named:
            continue
        if folders[1] in ("commits", "staged") and stem in whole:
            continue
        if folders[1] == "manifest" and folders[-1] in finalized.shards:
            continue
        if folders[1] == "absent" and folders[-1] in finalized.absent:
            continue
        if folders[1] in ("lease", "recipes"):
            continue
        left.append(name)
    return left


def test_night_after_ten_images_were_added_and_one_was_changed_labels_eleven(nights: Nights):
    nights.run()
    assert len(nights.labelled) == 20
    nights.put(*(f"new-{index}.jpg" for index in range(10)))
    nights.put("07.jpg", says=" anew")
    nights.run()
    assert sorted(nights.labelled) == ["07.jpg", *(f"new-{index}.jpg" for index in range(10))]
    assert verify(nights.output).problems == []


def test_many_nights_leave_three_versions_and_nothing_that_nobody_names(nights: Nights):
    on_s3 = nights.output.startswith("s3://")
    for night in range(7 if on_s3 else 20):  # a night on S3 takes ten times as long; the seventh has seen every case
        if night % 4 != 3:
            nights.put(f"night-{night:02d}.jpg")
        if night % 5 == 4:
            nights.remove(f"{night:02d}.jpg")
        if night % 6 == 5:
            nights.put("00.jpg", says=f" as of night {night}")
        before = nights.versions
        nights.run()
        is_quiet = night % 4 == 3 and night % 5 != 4 and night % 6 != 5
        assert bool(nights.labelled) == (night % 4 != 3 or night % 6 == 5)
        assert (nights.versions == before) == is_quiet, night
        assert nights.latest == nights.versions[-1]
        assert verify(nights.output).problems == []
        assert strangers(nights.output) == []
    assert len(nights.versions) == KEPT
    assert len([name for name in files_below(nights.output) if name.startswith("_run/lease/")]) == 1


def test_reader_of_an_earlier_version_finds_all_of_it_after_later_nights(nights: Nights):
    nights.run()
    first = dataset_uri(RunFolder(nights.output))
    rows = table_at(first, "ocr").to_pylist()
    for night in range(KEPT - 1):
        nights.put(f"late-{night}.jpg")
        nights.run()
        assert table_at(first, "ocr").to_pylist() == rows
    assert len(table_at(dataset_uri(RunFolder(nights.output)), "ocr")) == len(rows) + KEPT - 1
    nights.put("last.jpg")
    nights.run()
    assert files_below(first) == [], "it was the oldest of one more than are kept"


def test_images_that_are_deleted_or_changed_are_marked_and_one_that_comes_back_is_not(nights: Nights):
    nights.run()
    bring_back_deleted, bring_back_changed = nights.hide("03.jpg"), nights.hide("05.jpg")
    nights.put("05.jpg", says=" anew")
    summary = nights.run()
    assert nights.labelled == ["05.jpg"]
    assert summary["source_states"] == {"present": 19, "gone": 1, "changed": 1}
    states = nights.states()
    assert (states["03.jpg (old)"], states["05.jpg (old)"], states["05.jpg"]) == ("gone", "changed", "present")
    exported = export(nights.output, to="messages", copy_images=False)
    assert (exported.num_samples, exported.num_rows_not_in_source) == (19, 2)

    bring_back_deleted()
    bring_back_changed()
    summary = nights.run()
    assert nights.labelled == [], "both were labelled before"
    assert summary["source_states"] == {"present": 20, "changed": 1}
    assert nights.states()["03.jpg"] == "present"
    assert verify(nights.output).problems == []


def test_image_that_was_deleted_before_it_was_labelled_is_skipped_until_it_comes_back(nights: Nights, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr(runs, "_label", lambda *everything: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            nights.run()
    bring_back = nights.hide("11.jpg")
    assert nights.run()["recipes"]["ocr"]["skipped"] == 1
    assert len(nights.labelled) == 19
    assert status(nights.output).recipes["ocr"] == {"labelled": 19, "quarantined": 0, "skipped": 1, "pending": 0}
    assert verify(nights.output).problems == []
    bring_back()
    assert nights.run()["recipes"]["ocr"]["skipped"] == 0
    assert nights.labelled == ["11.jpg"]


def test_run_that_does_not_list_all_of_the_source_marks_nothing(nights: Nights):
    nights.run()
    nights.remove("19.jpg")
    assert nights.run(limit=5)["source_states"] == {"present": 20}
    assert nights.run(list_source=False)["source_states"] == {"present": 20}
    assert nights.run()["source_states"] == {"present": 19, "gone": 1}
    assert nights.run(list_source=False)["source_states"] == {"present": 19, "gone": 1}


def test_version_of_a_run_that_was_killed_is_removed_by_the_next(nights: Nights, monkeypatch):
    nights.run()
    nights.put("new.jpg")
    with monkeypatch.context() as patch:
        patch.setattr(runs, "dataset_card", lambda summary: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            nights.run()
    killed = nights.versions[-1]
    assert nights.latest < killed
    nights.run()
    assert nights.latest > killed
    assert killed not in nights.versions
    assert strangers(nights.output) == []
    assert verify(nights.output).problems == []


def test_staged_files_that_no_commit_names_are_removed_by_the_second_run_that_sees_them(nights: Nights):
    nights.run()
    orphan = f"{nights.output}/_run/staged/ocr/orphan.parquet"
    open_store(nights.output).put(orphan, b"of a worker that died before its commit")
    for name in ("a.jpg", "b.jpg"):
        assert open_store(nights.output).exists(orphan)
        nights.put(name)
        nights.run()
    assert not open_store(nights.output).exists(orphan)


def test_fewer_versions_are_kept_as_soon_as_the_job_says_so(nights: Nights):
    for night in range(3):
        nights.put(f"{night}.jpg")
        nights.run()
    newest = nights.versions[-1]
    nights.keep_versions = 1
    nights.run()
    assert nights.versions == [newest] == [nights.latest]


def test_output_that_keeps_versions_cannot_become_one_that_does_not(nights: Nights):
    nights.run()
    nights.keep_versions = None
    with pytest.raises(ValueError, match="output.keep_versions"):
        nights.run()


def test_without_versions_the_dataset_lies_in_the_output_itself(nights: Nights):
    nights.keep_versions = None
    nights.run()
    nights.remove("03.jpg")
    nights.run()
    assert (nights.versions, nights.states()["03.jpg (old)"]) == ([], "gone")
    assert dataset_uri(RunFolder(nights.output)) == nights.output
    assert verify(nights.output).problems == []
