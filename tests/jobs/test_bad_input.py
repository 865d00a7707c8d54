"""Bad input ends a command with one clear line and an exit code: 2 for the job file, 1 for what it points to."""

import json
import os
import shutil
from pathlib import Path

import boto3
import pytest
from PIL import Image

from pipeline.lease import hold_lease
from tests import golden, s3
from tests.command import assert_one_clear_line, labelmill, labelmill_here, write_job


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    Image.new("RGB", (40, 30), "red").save(folder / "red.png")
    return folder


def test_misspelt_recipe_is_named_with_its_likely_meaning(tmp_path: Path, images: Path):
    job = write_job(tmp_path, source=str(images), output=str(tmp_path / "out"), recipes=["captoin"])
    assert_one_clear_line(labelmill("run", job), "recipes.0", "captoin", "did you mean 'caption'", code=2)


def test_every_problem_of_a_job_file_gets_its_own_line_with_its_path(tmp_path: Path):
    job = tmp_path / "job.yaml"
    job.write_text("name: x\nsorce: here\nrecipes: [qa]\noutput: out\nlimits: {max_pixels: many}\n")
    done = labelmill_here("run", job)
    assert done.code == 2
    paths = [line.split(": ")[1] for line in done.complaints]
    assert sorted(paths) == ["limits.max_pixels", "recipes.0", "sorce", "source"]
    assert "Traceback" not in done.stderr


def test_override_with_an_unknown_key_is_refused(tmp_path: Path, images: Path):
    job = write_job(tmp_path, source=str(images), output=str(tmp_path / "out"))
    assert_one_clear_line(labelmill_here("run", job, "--set", "engine.dtyp=float32"), "engine.dtyp", "dtype", code=2)


def test_job_file_that_is_not_there_is_named(tmp_path: Path):
    assert_one_clear_line(labelmill_here("run", tmp_path / "nowhere.yaml"), "nowhere.yaml", code=2)


def test_unknown_option_and_command_are_usage_errors():
    assert_one_clear_line(labelmill("run", "job.yaml", "--limt", "3"), "--limt", code=2)
    assert_one_clear_line(labelmill("rnu"), "rnu", code=2)


def test_source_without_images_is_refused(tmp_path: Path):
    folder = tmp_path / "empty"
    folder.mkdir()
    (folder / "notes.txt").write_text("no image")
    job = write_job(tmp_path, source=str(folder), output=str(tmp_path / "out"))
    assert_one_clear_line(labelmill_here("run", job), str(folder), "no image")


def test_source_folder_that_is_not_there_is_named(tmp_path: Path):
    job = write_job(tmp_path, source=str(tmp_path / "nowhere"), output=str(tmp_path / "out"))
    assert_one_clear_line(labelmill_here("run", job), "nowhere")


def test_missing_bucket_is_named(tmp_path: Path, bucket: str):
    job = write_job(tmp_path, source=f"{bucket}-typo/images/", output=str(tmp_path / "out"))
    assert_one_clear_line(labelmill("run", job), f"{bucket}-typo", "bucket")


def test_store_that_does_not_answer_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    endpoint = s3.unused_endpoint()
    s3.use_store(monkeypatch, endpoint)
    monkeypatch.setenv("LABELMILL_STORE_PATIENCE_S", "0.1")
    job = write_job(tmp_path, source="s3://bucket/images/", output=str(tmp_path / "out"))
    assert_one_clear_line(labelmill_here("run", job), endpoint)


def test_output_that_cannot_be_written_is_named(tmp_path: Path, images: Path):
    blocker = tmp_path / "a-file"
    blocker.write_text("in the way")
    job = write_job(tmp_path, source=str(images), output=str(blocker / "out"))
    assert_one_clear_line(labelmill_here("run", job), "cannot write", str(blocker))


def test_output_with_files_of_others_is_refused(tmp_path: Path, images: Path):
    theirs = tmp_path / "out" / "captions" / "mine.parquet"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("precious")
    job = write_job(tmp_path, source=str(images), output=str(tmp_path / "out"))
    assert_one_clear_line(labelmill_here("run", job), "mine.parquet", "choose another output")
    assert theirs.read_text() == "precious"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return Path(shutil.copytree(golden.checkpoint_folder("base-like"), tmp_path / "checkpoint"))


def run_with_checkpoint(tmp_path: Path, images: Path, checkpoint: object):
    job = write_job(tmp_path, source=str(images), output=str(tmp_path / "out"), checkpoint=str(checkpoint))
    return labelmill_here("run", job)


def test_checkpoint_without_one_of_its_shards_is_refused(tmp_path: Path, images: Path, checkpoint: Path):
    (checkpoint / "model-00002-of-000003.safetensors").unlink()
    assert_one_clear_line(run_with_checkpoint(tmp_path, images, checkpoint), "model-00002-of-000003.safetensors")


@pytest.mark.parametrize("missing", ["config.json", "processor_config.json", "tokenizer.json"])
def test_checkpoint_without_one_of_its_files_is_refused(tmp_path: Path, images: Path, checkpoint: Path, missing: str):
    (checkpoint / missing).unlink()
    assert_one_clear_line(run_with_checkpoint(tmp_path, images, checkpoint), missing, "missing")


def test_shard_that_was_cut_off_is_named(tmp_path: Path, images: Path, checkpoint: Path):
    shard = checkpoint / "model-00001-of-000003.safetensors"
    shard.write_bytes(shard.read_bytes()[:100_000])
    assert_one_clear_line(run_with_checkpoint(tmp_path, images, checkpoint), shard.name)


def test_shard_with_a_damaged_header_is_named(tmp_path: Path, images: Path, checkpoint: Path):
    shard = checkpoint / "model-00003-of-000003.safetensors"
    damaged = bytearray(shard.read_bytes())
    damaged[8:40] = b"\xff" * 32
    shard.write_bytes(damaged)
    assert_one_clear_line(run_with_checkpoint(tmp_path, images, checkpoint), shard.name)


def test_shard_with_damaged_weights_is_named_without_a_traceback(tmp_path: Path, images: Path, checkpoint: Path):
    """Only loading sees it: in the label actor of a run, in its own process for `label`."""
    shard = checkpoint / "model-00001-of-000003.safetensors"
    damaged = bytearray(shard.read_bytes())
    damaged[-60_000:] = b"\xff" * 60_000
    shard.write_bytes(damaged)
    in_own_process = labelmill("label", images / "red.png", "--checkpoint", checkpoint)
    assert_one_clear_line(in_own_process, shard.name, "not finite")
    in_an_actor = run_with_checkpoint(tmp_path, images, checkpoint)
    assert_one_clear_line(in_an_actor, shard.name, "not finite", "Ray's logs")
    shutil.rmtree(in_an_actor.complaints[0].rsplit(" ", 1)[-1].rstrip(")"))


def test_checkpoint_location_that_is_nothing_is_named(tmp_path: Path, images: Path):
    assert_one_clear_line(run_with_checkpoint(tmp_path, images, tmp_path / "nowhere"), "nowhere", "does not exist")


def test_label_says_why_an_image_cannot_be_labelled(tmp_path: Path):
    broken = tmp_path / "broken.jpg"
    broken.write_text("<html>404</html>")
    assert_one_clear_line(labelmill_here("label", broken), "unreadable", "HTML")


def test_verify_of_a_folder_that_is_no_output_is_refused(tmp_path: Path):
    assert_one_clear_line(labelmill_here("verify", tmp_path), str(tmp_path), "no run of labelmill")


class TestStoreThatChecksCredentials:
    """moto with authentication and IAM switched on: an admin makes the bucket, then users of lesser rights try."""

    @pytest.fixture
    def guarded(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
        monkeypatch.setenv("INITIAL_NO_AUTH_ACTION_COUNT", "4")  # the four calls below
        with s3.moto_server() as endpoint:
            s3.use_store(monkeypatch, endpoint)
            session = boto3.session.Session()  # the default one would remember other tests' credentials
            iam = session.client("iam", endpoint_url=endpoint)
            iam.create_user(UserName="reader")
            key = iam.create_access_key(UserName="reader")["AccessKey"]
            session.client("s3", endpoint_url=endpoint).create_bucket(Bucket="guarded")
            session.client("s3", endpoint_url=endpoint).put_object(Bucket="guarded", Key="images/a.png", Body=b"x")
            yield key

    def test_wrong_credentials_are_called_wrong(self, guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "nobody")
        job = write_job(tmp_path, source="s3://guarded/images/", output=str(tmp_path / "out"))
        assert_one_clear_line(labelmill_here("run", job), "guarded", "credentials")

    def test_missing_permission_is_called_forbidden(self, guarded, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", guarded["AccessKeyId"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", guarded["SecretAccessKey"])
        job = write_job(tmp_path, source="s3://guarded/images/", output=str(tmp_path / "out"))
        assert_one_clear_line(labelmill_here("run", job), "guarded", "access denied", "rights")


def test_credentials_in_a_job_file_are_refused(tmp_path: Path):
    job = tmp_path / "job.yaml"
    document = {"name": "x", "source": {"uri": "s3://b/", "access_key": "SECRET"}, "recipes": ["ocr"], "output": "o"}
    job.write_text(json.dumps(document))
    done = labelmill_here("run", job)
    assert done.code == 2
    assert "environment" in done.complaints[0]
    assert "SECRET" not in done.stderr


def test_second_run_on_an_output_says_who_has_it(tmp_path: Path, images: Path):
    output = tmp_path / "out"
    job = write_job(tmp_path, source=str(images), output=str(output))
    with hold_lease(f"{output}/_run/lease"):
        assert_one_clear_line(labelmill_here("run", job), "in use by another run", f"process {os.getpid()} on")
        shown = labelmill_here("status", output)
    assert f"run 1 of {output}: running" in shown.stdout
    assert "dataset: not written yet" in shown.stdout


def test_status_and_retry_of_what_is_no_output_say_so(tmp_path: Path):
    for verb in ("status", "retry"):
        assert_one_clear_line(labelmill_here(verb, tmp_path), str(tmp_path), "holds no run of labelmill")
    assert not list(tmp_path.iterdir())


def test_retry_of_an_unknown_kind_of_error_lists_those_there_are(tmp_path: Path):
    refused = labelmill_here("retry", tmp_path, "--kind", "unreadible")
    assert_one_clear_line(refused, "unreadible", "unreadable, truncated")
