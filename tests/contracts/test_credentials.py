"""A real run from S3 to S3 whose secrets would be recognised: they are in nothing that it writes, prints or logs."""

import io
import os
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pipeline import cluster
from pipeline.storage import join_uri, open_store
from tests import golden
from tests.command import Finished, labelmill_here, write_job
from tests.pipeline.tables import put_table

SECRETS = {
    "AWS_ACCESS_KEY_ID": "AKIARECOGNISABLEKEYID",
    "AWS_SECRET_ACCESS_KEY": "recognisable/secret+key",
    "AWS_SESSION_TOKEN": "recognisable-session-token",
}
LEFT_OUT = "signature-of-a-column-left-out"
IN_URI, PASSWORD = "signature-of-an-image-uri", "password-of-an-image-uri"


@pytest.fixture
def ray_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where Ray's temporary folder of the run lands, which a run that ends well removes."""
    kept = tmp_path / "ray"
    remove = shutil.rmtree

    def keep(folder: Path, ignore_errors: bool = False) -> None:
        if Path(folder).name.startswith("labelmill-"):
            shutil.copytree(folder, kept, symlinks=True, ignore=_other_than_files)
        remove(folder, ignore_errors=ignore_errors)

    monkeypatch.setattr(cluster.shutil, "rmtree", keep)
    return kept


def _other_than_files(folder: str, names: list[str]) -> list[str]:
    """Ray's sockets cannot be copied."""
    modes = {name: os.lstat(os.path.join(folder, name)).st_mode for name in names}
    return [name for name, mode in modes.items() if not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))]


def contents(output: str) -> Iterator[tuple[str, str]]:
    """Every object below the output with what it says: tables decompressed, with their schemas."""
    for info in open_store(output).list(output):
        content = open_store(output).get(info.uri)
        yield info.uri, content.decode(errors="replace")
        if info.uri.endswith(".parquet"):
            table = pq.read_table(io.BytesIO(content))
            yield info.uri, f"{table.schema} {table.schema.metadata} {table.to_pylist()}"


def job_on_store(bucket: str, tmp_path: Path) -> tuple[Path, str]:
    """An image that is labelled, and one row for each way to be refused."""
    picture = sorted((golden.FOLDER / "images").glob("*.png"))[0]
    open_store(bucket).put(f"{bucket}/in/a.png", picture.read_bytes())
    open_store(bucket).put(f"{bucket}/in/broken.png", b"not an image")
    signed = f"https://me:{PASSWORD}@images.example/a.png?X-Amz-Signature={IN_URI}"
    uris = ["a.png", "broken.png", "missing.png", signed, "s3://not-ours/a.png", "/etc/passwd"]
    links = [f"https://bucket.example/a?X-Amz-Security-Token={LEFT_OUT}"] * len(uris)
    table = put_table(f"{bucket}/in", "t.parquet", {"image_uri": uris, "license": ["cc0"] * len(uris), "link": links})
    output = f"{bucket}/out"
    source = {"uri": table, "carry": ["license"]}
    recipes = [{"name": "ocr", "max_new_tokens": 2}]
    return write_job(tmp_path, source=source, output=output, recipes=recipes), output


def test_secrets_are_in_nothing_that_a_run_leaves(
    bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ray_folder: Path
):
    for name, secret in SECRETS.items():
        monkeypatch.setenv(name, secret)
    job, output = job_on_store(bucket, tmp_path)
    done = labelmill_here("run", job, "--json")
    assert done.code == 3, done.stderr
    assert done.summary["quarantined_by_kind"] == {"forbidden": 2, "unreadable": 1, "missing": 1, "unsupported_uri": 1}

    written = list(contents(output))
    assert {"README.md", "job.yaml", "run.json", "summary.json"} <= {uri.rpartition("/")[2] for uri, _ in written}
    assert any("cc0" in text for uri, text in written if "/ocr/" in uri)
    logs = [(str(path), path.read_text(errors="replace")) for path in ray_folder.rglob("*") if path.is_file()]
    assert any(path.endswith("raylet.out") for path, _ in logs)
    everything = [*written, *logs, *printed(done)]
    for secret in (*SECRETS.values(), LEFT_OUT, PASSWORD):
        assert [name for name, text in everything if secret in text] == [], secret

    # What signs an image's own URI stays in its name, so that labels can be joined to the source, and nowhere else.
    table = pq.read_table(io.BytesIO(quarantine(output))).to_pylist()
    assert [row["image_uri"] for row in table if IN_URI in row["image_uri"]] == [
        f"https://images.example/a.png?X-Amz-Signature={IN_URI}"
    ]
    assert [row["message"] for row in table if IN_URI in row["message"]] == []
    assert [name for name, text in [*logs, *printed(done)] if IN_URI in text] == []


def printed(done: Finished) -> list[tuple[str, str]]:
    return [("stdout", done.stdout), ("stderr", done.stderr)]


def quarantine(output: str) -> bytes:
    folder = join_uri(output, "quarantine")
    (part,) = open_store(folder).list(folder)
    return open_store(folder).get(part.uri)
