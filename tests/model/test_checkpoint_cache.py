"""A checkpoint of a store is fetched once per node, whatever is killed, damaged, changed or full meanwhile."""

import contextlib
import json
import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from model import checkpoint_cache, checkpoint_locks, ranged_download
from model.checkpoint_cache import cached_folder
from model.checkpoint_store import NUM_CONNECTIONS
from tests import s3, swift
from tests.faulty_s3 import Fault, FaultyS3, faulty_s3
from tests.model.stored_checkpoints import (
    CONTENT,
    NUM_RANGES,
    STUCK_AFTER_S,
    child,
    content_of,
    everything,
    put,
    put_in_parts,
    ranges_asked,
    ranges_listed,
    wait_until,
)

pytestmark = pytest.mark.usefixtures("checkpoints")


@pytest.fixture
def proxy(moto_endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[FaultyS3]:
    """Between this test and the store; lets everything pass until it is told otherwise."""
    with faulty_s3(moto_endpoint, faults=(Fault.STALL,), stall_s=2 * STUCK_AFTER_S) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        yield proxy


def stall_after(proxy: FaultyS3, num_requests: int) -> None:
    proxy.inject(*[None] * num_requests)
    proxy.rate = 1.0


def all_connections_stall(proxy: FaultyS3) -> bool:
    return proxy.injected[Fault.STALL] >= NUM_CONNECTIONS


def test_checkpoint_is_fetched_in_ranges_and_every_range_once(bucket: str, proxy: FaultyS3):
    assert content_of(cached_folder(put(f"{bucket}/c"), everything)) == CONTENT
    assert len(ranges_asked(proxy)) == ranges_asked(proxy).total() == NUM_RANGES


def test_object_that_was_uploaded_in_parts_is_compared_part_by_part(
    bucket: str, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(ranged_download, "RANGE_BYTES", 1_000_000)
    uri = put(f"{bucket}/c", {"config.json": b"{}"})
    weights = put_in_parts(f"{bucket}/c", "weights.safetensors")
    assert content_of(cached_folder(uri, everything)) == {"config.json": b"{}", "weights.safetensors": weights}
    assert ("HEAD", f"/{bucket.removeprefix('s3://')}/c/weights.safetensors?partNumber=1", "") in proxy.requests
    assert "fetching it again" not in caplog.text


@pytest.mark.swift
@pytest.mark.skipif(swift.reason_to_skip() is not None, reason=str(swift.reason_to_skip()))
def test_checkpoint_is_fetched_from_swift_and_goes_on_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(ranged_download, "RANGE_BYTES", 1_000_000)
    with swift.swift_store(tmp_path / "swift", monkeypatch) as bucket:
        uri = put(f"{bucket}/c")
        weights = put_in_parts(uri, "weights.safetensors")
        folder = cached_folder(uri, everything)
        assert content_of(folder) == {**CONTENT, "weights.safetensors": weights}
        assert "fetching it again" not in caplog.text
        flip_a_bit(folder / "weights.safetensors", 5_000_000)
        assert content_of(cached_folder(uri, everything)) == {**CONTENT, "weights.safetensors": weights}
        put(uri, {"one.safetensors": b"another"})
        assert content_of(cached_folder(uri, everything))["one.safetensors"] == b"another"


def test_killed_download_goes_on_with_the_ranges_that_are_missing(bucket: str, proxy: FaultyS3, checkpoints: Path):
    uri = put(f"{bucket}/c")
    stall_after(proxy, 10)
    with child(uri) as process:
        wait_until(lambda: all_connections_stall(proxy))
        process.send_signal(signal.SIGKILL)
    kept = ranges_listed(checkpoints)
    assert 0 < len(kept) < NUM_RANGES
    proxy.rate = 0.0
    proxy.requests.clear()
    assert content_of(cached_folder(uri, everything)) == CONTENT
    assert not kept & ranges_asked(proxy).keys()
    assert ranges_asked(proxy).total() == NUM_RANGES - len(kept)


def test_processes_that_ask_at_once_fetch_once(bucket: str, proxy: FaultyS3):
    uri = put(f"{bucket}/c")
    with contextlib.ExitStack() as stack:
        processes = [stack.enter_context(child(uri)) for _ in range(2)]
        folders = {Path(process.communicate("")[0].strip()) for process in processes}
    assert len(folders) == 1
    assert content_of(folders.pop()) == CONTENT
    assert ranges_asked(proxy).total() == NUM_RANGES


def test_process_that_waits_says_for_whom_and_takes_over_when_that_one_dies(
    bucket: str, proxy: FaultyS3, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
):
    monkeypatch.setattr(checkpoint_locks, "FIRST_NOTICE_S", 0.0)
    uri, folders = put(f"{bucket}/c"), []
    stall_after(proxy, 10)
    with child(uri) as process:
        wait_until(lambda: all_connections_stall(proxy))
        proxy.rate = 0.0
        waiting = threading.Thread(target=lambda: folders.append(cached_folder(uri, everything)))
        waiting.start()
        wait_until(lambda: "waiting for" in caplog.text)
        assert f"waiting for process {process.pid} on " in caplog.text
        assert f"it fetches or checks {uri}" in caplog.text
        assert not folders
        process.kill()
        waiting.join()
    assert content_of(folders[0]) == CONTENT


@pytest.mark.parametrize("seed", [1, 2])
def test_faults_of_the_store_are_waited_out(
    moto_endpoint: str, bucket: str, monkeypatch: pytest.MonkeyPatch, seed: int
):
    uri = put(f"{bucket}/c")
    monkeypatch.setenv("LABELMILL_STORE_PATIENCE_S", "60")
    with faulty_s3(moto_endpoint, seed=seed, rate=0.3) as proxy:
        monkeypatch.setenv("AWS_ENDPOINT_URL", proxy.url)
        assert content_of(cached_folder(uri, everything)) == CONTENT
    assert proxy.injected.total() > 5


def test_store_that_goes_away_is_named_and_what_came_is_kept(
    bucket: str, proxy: FaultyS3, checkpoints: Path, monkeypatch: pytest.MonkeyPatch
):
    uri = put(f"{bucket}/c")
    monkeypatch.setenv("LABELMILL_STORE_PATIENCE_S", "0.1")
    proxy.faults = (Fault.INTERNAL_ERROR,)
    stall_after(proxy, 10)
    with pytest.raises(ValueError, match=r"c' could not be fetched: the store answers InternalError \(HTTP 500\)"):
        cached_folder(uri, everything)
    assert ranges_listed(checkpoints)
    assert not list(checkpoints.glob("*/files"))


@pytest.mark.parametrize("value", ["soon", "-1", "nan", "inf"])
def test_patience_that_is_no_number_of_seconds_is_refused(bucket: str, monkeypatch: pytest.MonkeyPatch, value: str):
    monkeypatch.setenv("LABELMILL_STORE_PATIENCE_S", value)
    with pytest.raises(ValueError, match=f"LABELMILL_STORE_PATIENCE_S is '{value}'; set it to a number of seconds"):
        cached_folder(f"{bucket}/c", everything)


def test_store_that_refuses_is_quoted_without_the_credentials_it_was_shown(
    modest_store: s3.ModestStore, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a-secret-token")
    modest_store.refusal = (403, "AccessDenied")
    with pytest.raises(ValueError, match=r"c' could not be fetched: the store answers \w+ \(HTTP 403\)$") as raised:
        cached_folder("s3://bucket/c", everything)
    assert "testing" not in str(raised.value)
    assert "a-secret-token" not in str(raised.value)


def flip_a_bit(path: Path, at: int) -> None:
    with path.open("r+b") as stream:
        stream.seek(at)
        byte = stream.read(1)[0]
        stream.seek(at)
        stream.write(bytes([byte ^ 1]))


def test_flipped_bit_costs_its_range(bucket: str, proxy: FaultyS3):
    uri = put(f"{bucket}/c")
    folder = cached_folder(uri, everything)
    flip_a_bit(folder / "one.safetensors", 34_567)
    proxy.requests.clear()
    assert cached_folder(uri, everything) == folder
    assert content_of(folder) == CONTENT
    assert ranges_asked(proxy) == {("one.safetensors", "bytes=30000-39999"): 1}


def test_file_that_was_removed_is_fetched_again(bucket: str, proxy: FaultyS3):
    uri = put(f"{bucket}/c")
    folder = cached_folder(uri, everything)
    (folder / "two.safetensors").unlink()
    proxy.requests.clear()
    assert content_of(cached_folder(uri, everything)) == CONTENT
    assert {name for name, _ in ranges_asked(proxy)} == {"two.safetensors"}


def test_damage_that_the_file_system_does_not_show_is_found_within_a_day(bucket: str, monkeypatch: pytest.MonkeyPatch):
    uri = put(f"{bucket}/c")
    folder = cached_folder(uri, everything)
    flip_a_bit(folder / "one.safetensors", 0)
    checked, stat = folder.parent / "checked.json", (folder / "one.safetensors").stat()
    record = json.loads(checked.read_text())
    record["looks"]["one.safetensors"] = [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
    checked.write_text(json.dumps(record))
    assert content_of(cached_folder(uri, everything)) != CONTENT
    monkeypatch.setattr(checkpoint_cache, "CHECK_EVERY_S", 0.0)
    assert content_of(cached_folder(uri, everything)) == CONTENT


def test_object_that_changes_after_the_listing_never_meets_the_others(bucket: str):
    uri, changed = put(f"{bucket}/c"), {**CONTENT, "two.safetensors": CONTENT["two.safetensors"][::-1]}
    changes = [changed]

    def change_then_everything(name: str) -> bool:
        if changes:
            put(uri, changes.pop())
        return True

    assert content_of(cached_folder(uri, change_then_everything)) == changed


def test_object_that_is_added_while_others_are_fetched_is_fetched_too(bucket: str):
    uri, additions = put(f"{bucket}/c"), [{"three.safetensors": b"more"}]

    def add_then_everything(name: str) -> bool:
        if additions:
            put(uri, additions.pop())
        return True

    folder = cached_folder(uri, add_then_everything)
    assert content_of(folder) == {**CONTENT, "three.safetensors": b"more"}


def test_checkpoint_that_never_stays_the_same_is_refused(bucket: str):
    uri, content = put(f"{bucket}/c", {"config.json": b"{}"}), iter(range(10_000))

    def change_then_everything(name: str) -> bool:
        put(uri, {"config.json": str(next(content)).encode()})
        return True

    with pytest.raises(ValueError, match="changed 3 times while it was fetched: wait for its upload to end"):
        cached_folder(uri, change_then_everything)
