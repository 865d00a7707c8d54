"""A checkpoint's location becomes a local folder: built in, a folder, an s3:// prefix, or a hub id."""

import hashlib
import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest

from model import checkpoint_files
from model.checkpoint import INDEX_FILE, check
from model.checkpoint_files import CONFIG_FILES, NANO_FOLDER, digest, local_folder
from tests import golden, s3
from tests.model.helpers import copy_checkpoint

NAME = "base-like"
FILES = sorted(path.name for path in golden.checkpoint_folder(NAME).iterdir())
NEEDED = {*CONFIG_FILES, INDEX_FILE, *(name for name in FILES if name.endswith(".safetensors"))}


pytestmark = pytest.mark.usefixtures("cache")


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_folder_is_used_where_it_lies():
    folder = golden.checkpoint_folder(NAME)
    assert local_folder(folder) == local_folder(str(folder)) == folder


def test_home_directory_is_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine").mkdir()
    assert local_folder("~/mine") == tmp_path / "mine"


def test_nano_is_built_in():
    assert local_folder("nano") == NANO_FOLDER
    assert check("nano").language.n_routed_experts


def test_folder_wins_over_the_hub_id_of_the_same_spelling(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert local_folder("owner/name") == Path("owner/name")


@pytest.mark.parametrize(
    "location", ["no-such-folder", "/no/such/folder", "~no_such_user/x", "a/b/c", "https://host/x", "nan o/x", "-a/b"]
)
def test_nonsense_is_refused_with_advice(location: str):
    with pytest.raises(ValueError, match=r"does not exist: give 'nano', a folder, an s3:// prefix or a hub id"):
        local_folder(location)


def test_file_is_refused_with_advice(tmp_path: Path):
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(ValueError, match=r"is a file: give the folder that holds config.json"):
        local_folder(tmp_path / "model.safetensors")


def test_digest_names_the_content_and_not_the_place(tmp_path: Path):
    copy = copy_checkpoint(NAME, tmp_path / "copy")
    assert digest(copy) == digest(golden.checkpoint_folder(NAME))
    (copy / "notes.txt").write_text("not part of it")
    assert digest(copy) == digest(golden.checkpoint_folder(NAME))


@pytest.mark.parametrize("name", ["config.json", "tokenizer.json", "model-00002-of-000003.safetensors"])
def test_digest_changes_with_any_file_of_the_checkpoint(tmp_path: Path, name: str):
    copy = copy_checkpoint(NAME, tmp_path / "copy")
    content = bytearray((copy / name).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / name).write_bytes(content)
    assert digest(copy) != digest(golden.checkpoint_folder(NAME))


def upload(bucket: str, prefix: str, **extra: bytes) -> str:
    """Puts the golden checkpoint and `extra` under a prefix; returns its URI."""
    client, name = boto3.client("s3"), bucket.removeprefix("s3://")
    for path in golden.checkpoint_folder(NAME).iterdir():
        client.put_object(Bucket=name, Key=f"{prefix}{path.name}", Body=path.read_bytes())
    for key, body in extra.items():
        client.put_object(Bucket=name, Key=prefix + key, Body=body)
    return f"{bucket}/{prefix}"


@pytest.mark.parametrize("prefix", ["models/base/", ""], ids=["below a prefix", "at the top of the bucket"])
def test_checkpoint_is_fetched_from_a_store(bucket: str, prefix: str):
    folder = local_folder(upload(bucket, prefix))
    assert names_in(folder) == NEEDED
    assert digest(folder) == digest(golden.checkpoint_folder(NAME))


def test_configuration_alone_is_fetched_where_no_weights_are_needed(bucket: str):
    assert names_in(local_folder(upload(bucket, "c/"), weights=False)) == set(CONFIG_FILES)


def test_slash_at_the_end_of_the_prefix_changes_nothing(bucket: str):
    uri = upload(bucket, "c/").rstrip("/")
    assert local_folder(uri) == local_folder(uri + "/")


def test_objects_that_are_no_part_of_the_checkpoint_are_not_fetched(bucket: str):
    uri = upload(bucket, "c/", **{"old/config.json": b"{}", "README.md": b"x", "pickle.bin": b"x"})
    assert names_in(local_folder(uri)) == NEEDED


def test_checkpoint_is_not_fetched_again(bucket: str):
    uri = upload(bucket, "c/")
    first = local_folder(uri)
    (first / "mark").touch()
    assert local_folder(uri) == first
    assert (first / "mark").exists()


def test_changed_checkpoint_is_fetched_anew_and_the_old_one_stays(bucket: str):
    old = local_folder(upload(bucket, "c/"))
    new = local_folder(upload(bucket, "c/", **{"tokenizer.json": b"{}"}))
    assert old != new
    assert (new / "tokenizer.json").read_bytes() == b"{}"
    assert digest(old) == digest(golden.checkpoint_folder(NAME))


def test_many_threads_may_fetch_the_same_checkpoint(bucket: str):
    uri, folders = upload(bucket, "c/"), []
    threads = [threading.Thread(target=lambda: folders.append(local_folder(uri))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(folders) == 4
    assert len(set(folders)) == 1
    assert digest(folders[0]) == digest(golden.checkpoint_folder(NAME))


def test_prefix_without_a_checkpoint_is_refused(bucket: str):
    upload(bucket, "c/")
    with pytest.raises(ValueError, match=r"d' holds no config.json \(0 objects lie directly under it\)"):
        local_folder(f"{bucket}/d")


@pytest.mark.parametrize("uri", ["s3://no-such-bucket-here/c", "s3://", "s3:///c"])
def test_bucket_that_is_not_there_is_refused(bucket: str, uri: str):
    with pytest.raises(ValueError, match="could not be fetched") as raised:
        local_folder(uri)
    assert uri in str(raised.value)


class _HubHandler(http.server.BaseHTTPRequestHandler):
    """The endpoints of a hub that fetching a snapshot needs, over a golden checkpoint as `owner/name`."""

    COMMIT = "c" * 40
    downloads: list[str]

    def do_GET(self) -> None:
        path = self.path.partition("?")[0]
        if path in (f"/api/models/owner/name/revision/{revision}" for revision in ("main", "v1", self.COMMIT)):
            siblings = [{"rfilename": name} for name in [*FILES, "README.md"]]
            self._answer(json.dumps({"id": "owner/name", "sha": self.COMMIT, "siblings": siblings}).encode())
        elif path.startswith(f"/api/models/owner/name/tree/{self.COMMIT}"):
            files = [(name, self._content(name)) for name in FILES]
            entries = [
                {"type": "file", "path": name, "size": len(content), "oid": _sha1(content)} for name, content in files
            ]
            self._answer(json.dumps(entries).encode())
        elif path.startswith(f"/owner/name/resolve/{self.COMMIT}/"):
            name = path.rpartition("/")[2]
            if self.command == "GET":
                self.downloads.append(name)
            self._answer(self._content(name), {"ETag": f'"{_sha1(self._content(name))}"', "X-Repo-Commit": self.COMMIT})
        else:
            self._answer(b"{}", {"X-Error-Code": "RepoNotFound", "X-Error-Message": "not found"}, status=404)

    do_HEAD = do_GET

    def _content(self, name: str) -> bytes:
        return (golden.checkpoint_folder(NAME) / name).read_bytes()

    def _answer(self, body: bytes, headers: dict[str, str] | None = None, status: int = 200) -> None:
        self.send_response(status)
        for key, value in {"Content-Length": str(len(body)), **(headers or {})}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        pass


def _sha1(content: bytes) -> str:
    return hashlib.sha1(content).hexdigest()


@pytest.fixture
def hub() -> Iterator[tuple[str, list[str]]]:
    """The endpoint of a hub, and the names of the files fetched from it."""
    handler = type("Handler", (_HubHandler,), {"downloads": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", handler.downloads
    server.shutdown()
    thread.join()
    server.server_close()


def fetch_from_hub(endpoint: str, home: Path, hub_id: str, *, weights: bool = True) -> str:
    """In a process of its own, because huggingface_hub reads its environment when imported; what it printed."""
    code = f"""if True:
        from model.checkpoint_files import local_folder
        try:
            print(local_folder({hub_id!r}, weights={weights}))
        except ValueError as error:
            print(error)
    """
    environment = {key: value for key, value in os.environ.items() if not key.startswith("HF_")}
    environment |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(home), "HF_HUB_DISABLE_XET": "1"}
    environment |= {"HF_HUB_DISABLE_PROGRESS_BARS": "1", "PYTHONPATH": str(Path(checkpoint_files.__file__).parents[1])}
    command = [sys.executable, "-c", code]
    return subprocess.run(
        command, env=environment, cwd=home, capture_output=True, text=True, check=True, timeout=60
    ).stdout.strip()


def test_checkpoint_is_fetched_from_a_hub_once(hub: tuple[str, list[str]], tmp_path: Path):
    endpoint, downloads = hub
    folder = Path(fetch_from_hub(endpoint, tmp_path, "owner/name"))
    assert names_in(folder) == NEEDED
    assert digest(folder) == digest(golden.checkpoint_folder(NAME))
    assert set(downloads) == NEEDED
    downloads.clear()
    assert Path(fetch_from_hub(endpoint, tmp_path, "owner/name@v1")) == folder
    assert downloads == []


def test_configuration_alone_is_fetched_from_a_hub_where_no_weights_are_needed(
    hub: tuple[str, list[str]], tmp_path: Path
):
    endpoint, downloads = hub
    assert names_in(Path(fetch_from_hub(endpoint, tmp_path, "owner/name", weights=False))) == set(CONFIG_FILES)
    assert set(downloads) == set(CONFIG_FILES)


def test_hub_id_that_is_not_there_is_one_line(hub: tuple[str, list[str]], tmp_path: Path):
    message = fetch_from_hub(hub[0], tmp_path, "owner/other")
    assert message.startswith("checkpoint 'owner/other' is no folder here and could not be fetched from the hub: ")
    assert "404" in message
    assert "\n" not in message


def test_hub_that_does_not_answer_is_one_line(tmp_path: Path):
    message = fetch_from_hub(s3.unused_endpoint(), tmp_path, "owner/name")
    assert message.startswith("checkpoint 'owner/name' is no folder here and could not be fetched from the hub: ")
    assert "refused" in message
    assert "\n" not in message
