"""A file that came from a store is compared with what the store says of it, as far as that can be believed."""

import hashlib
import random
from pathlib import Path

import pytest

from model.checkpoint_store import StoredFile
from model.object_checksum import ObjectChecksum
from model.ranged_download import Download, check_and_fetch
from model.ranged_file import RangedFile

CONTENT = random.Random(0).randbytes(1000)
STORED = StoredFile(name="weights", key="c/weights", etag="e", num_bytes=len(CONTENT))


class Store:
    """A store with one object, which gives other bytes for the first answers than it says it has."""

    uri = "s3://bucket/c"

    def __init__(self, *first_answers: bytes, is_promise: bool) -> None:
        self.is_promise = is_promise
        self.answers = [*first_answers]
        self.num_reads = 0

    def read_range(self, file: StoredFile, offset: int, num_bytes: int) -> bytes:
        self.num_reads += 1
        return (self.answers.pop(0) if self.answers else CONTENT)[offset : offset + num_bytes]

    def checksum(self, file: StoredFile) -> ObjectChecksum:
        value = hashlib.sha256(CONTENT).hexdigest()
        return ObjectChecksum(algorithm="sha256", value=value, is_promise=self.is_promise)

    def close(self) -> None:
        pass


@pytest.fixture
def local(tmp_path: Path) -> RangedFile:
    file = RangedFile(tmp_path / "weights", tmp_path / "weights.list", num_bytes=len(CONTENT))
    file.reserve()
    return file


def fetch(store: Store, local: RangedFile, *, were_whole: bool = False) -> bytes:
    check_and_fetch(store, [Download(stored=STORED, local=local)], were_whole=were_whole)  # type: ignore[arg-type]
    return local.path.read_bytes()


OTHER = CONTENT[::-1]


@pytest.mark.parametrize("is_promise", [True, False])
def test_file_that_was_damaged_on_its_way_is_fetched_again(local: RangedFile, is_promise: bool):
    assert fetch(Store(OTHER, is_promise=is_promise), local) == CONTENT


def test_file_that_never_has_the_checksum_it_was_uploaded_with_is_refused(local: RangedFile):
    with pytest.raises(ValueError, match=r"c': weights was fetched twice and has not the sha256 that its store keeps"):
        fetch(Store(OTHER, OTHER, is_promise=True), local)
    assert local.gaps(len(CONTENT)) == [(0, len(CONTENT))]


def test_etag_that_is_something_else_is_found_out_by_fetching_twice(
    local: RangedFile, caplog: pytest.LogCaptureFixture
):
    assert fetch(Store(OTHER, OTHER, is_promise=False), local) == OTHER
    assert "came twice with the same bytes: its ETag is no MD5 of them" in caplog.text


def test_bytes_that_come_differently_each_time_are_refused(local: RangedFile):
    with pytest.raises(ValueError, match="weights was fetched twice"):
        fetch(Store(OTHER, OTHER[1:] + b"?", is_promise=False), local)


def test_file_that_was_filled_but_not_compared_before_a_kill_is_compared(local: RangedFile):
    local.fill(0, OTHER)
    store = Store(is_promise=True)
    assert fetch(store, local) == CONTENT
    assert store.num_reads == 1


def test_file_that_was_compared_before_costs_no_request(local: RangedFile):
    local.fill(0, CONTENT)
    store = Store(is_promise=True)
    assert fetch(store, local, were_whole=True) == CONTENT
    assert store.num_reads == 0
