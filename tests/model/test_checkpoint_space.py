"""A checkpoint that is fetched finds room for itself, or says how much is missing."""

import logging
import os
from pathlib import Path

import pytest

from model import checkpoint_space
from model.checkpoint_cache import cached_folder
from tests.faulty_s3 import faulty_s3
from tests.model.stored_checkpoints import (
    CONTENT,
    child,
    content_of,
    everything,
    fetch_in_child,
    names_in,
    put,
    ranges_asked,
)

pytestmark = pytest.mark.usefixtures("checkpoints")


def test_full_disk_is_named_before_anything_is_fetched(
    bucket: str, moto_endpoint: str, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(checkpoint_space, "free_bytes", lambda folder: 200_000)
    uri = put(f"{bucket}/c")
    with faulty_s3(moto_endpoint) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        with pytest.raises(ValueError, match=r"no room for 0.303 MB more: 0.103 MB are missing \(its disk is full;"):
            cached_folder(uri, everything)
    assert not ranges_asked(proxy)


def test_disk_that_fills_up_all_the_same_is_named(bucket: str, monkeypatch: pytest.MonkeyPatch):
    def full(*_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    with pytest.raises(ValueError, match=r"cannot be kept in .*No space left.*LABELMILL_CACHE names another folder"):
        cached_folder(put(f"{bucket}/c"), everything)


def test_checkpoint_that_was_used_longest_ago_makes_room(
    bucket: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    oldest, newer = (fetch_in_child(put(f"{bucket}/{name}")) for name in ("oldest", "newer"))
    os.utime(oldest.parent / "use.lock", (1, 1))
    monkeypatch.setenv("LABELMILL_CACHE_GB", "0.0007")
    with caplog.at_level(logging.INFO):
        assert content_of(cached_folder(put(f"{bucket}/c"), everything)) == CONTENT
    assert not oldest.parent.exists()
    assert content_of(newer) == CONTENT
    assert f"removed {oldest.parent} from the cache" in caplog.text


def test_checkpoint_that_a_process_uses_does_not_make_room(bucket: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("LABELMILL_CACHE_GB", "0.0005")
    with child(put(f"{bucket}/used")) as process:
        assert process.stdout is not None
        used = Path(process.stdout.readline().strip())
        with pytest.raises(ValueError, match=r"MB are missing \(LABELMILL_CACHE_GB allows 0.5 MB; 0.3\d+ MB of other"):
            cached_folder(put(f"{bucket}/c"), everything)
        assert content_of(used) == CONTENT
    cached_folder(f"{bucket}/c", everything)
    assert not used.exists()


def test_folder_that_is_none_of_ours_does_not_make_room(
    bucket: str, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
):
    (checkpoints / "mine").mkdir(parents=True)
    (checkpoints / "mine" / "model.safetensors").write_bytes(bytes(300_000))
    monkeypatch.setattr(checkpoint_space, "free_bytes", lambda folder: 200_000)
    with pytest.raises(ValueError, match="0 MB that are not would have been removed"):
        cached_folder(put(f"{bucket}/c"), everything)
    assert names_in(checkpoints / "mine") == {"model.safetensors"}


def test_nothing_is_removed_where_that_would_not_be_enough(bucket: str, monkeypatch: pytest.MonkeyPatch):
    unused = fetch_in_child(put(f"{bucket}/unused"))
    monkeypatch.setenv("LABELMILL_CACHE_GB", "0.0002")
    with pytest.raises(ValueError, match="that are not would have been removed"):
        cached_folder(put(f"{bucket}/c"), everything)
    assert content_of(unused) == CONTENT


def test_what_a_killed_process_had_begun_to_remove_is_removed(bucket: str, checkpoints: Path):
    (checkpoints / ".evicted-abc" / "c").mkdir(parents=True)
    cached_folder(put(f"{bucket}/c"), everything)
    assert not (checkpoints / ".evicted-abc").exists()


@pytest.mark.parametrize("value", ["much", "0", "-1", "nan"])
def test_limit_that_is_no_size_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("LABELMILL_CACHE_GB", value)
    with pytest.raises(ValueError, match=f"LABELMILL_CACHE_GB is '{value}'; set it to a number of GB"):
        cached_folder(put(f"{bucket}/c"), everything)
