"""A file filled range by range knows, after whatever has happened, which ranges it holds."""

from collections.abc import Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from pathlib import Path

import pytest

from model.ranged_file import RangedFile

CONTENT = bytes(range(100))


@pytest.fixture
def executor() -> Iterator[Executor]:
    with ThreadPoolExecutor(2) as executor:
        yield executor


@pytest.fixture
def file(tmp_path: Path) -> RangedFile:
    file = RangedFile(tmp_path / "file", tmp_path / "list", num_bytes=len(CONTENT))
    file.reserve()
    return file


def fill(file: RangedFile, *ranges: tuple[int, int]) -> None:
    for offset, num_bytes in ranges:
        file.fill(offset, CONTENT[offset : offset + num_bytes])


def test_empty_file_lacks_everything(file: RangedFile):
    assert file.gaps(40) == [(0, 40), (40, 40), (80, 20)]


def test_filled_ranges_are_not_lacking_whatever_their_size_and_order(file: RangedFile):
    fill(file, (80, 20), (10, 5), (0, 10))
    assert file.gaps(40) == [(15, 40), (55, 25)]
    assert file.num_filled_bytes() == 35


def test_whole_file_lacks_nothing(file: RangedFile, executor: Executor):
    fill(file, *file.gaps(30))
    assert file.gaps(30) == []
    assert file.check(executor) == 0
    assert file.path.read_bytes() == CONTENT


def test_range_with_a_flipped_bit_is_lacking_again(file: RangedFile, executor: Executor):
    fill(file, *file.gaps(30))
    file.path.write_bytes(CONTENT[:40] + b"\xff" + CONTENT[41:])
    assert file.check(executor) == 1
    assert file.gaps(100) == [(30, 30)]


def test_file_that_was_cut_off_lacks_its_end(file: RangedFile, executor: Executor):
    fill(file, *file.gaps(30))
    file.path.write_bytes(CONTENT[:50])
    file.reserve()
    assert file.check(executor) == 3
    assert file.gaps(100) == [(30, 70)]


def test_file_that_is_gone_lacks_everything(file: RangedFile, executor: Executor):
    fill(file, *file.gaps(30))
    file.path.unlink()
    assert file.check(executor) == 4
    assert file.num_missing_bytes() == len(CONTENT)


def test_bytes_too_many_are_cut_off(file: RangedFile, executor: Executor):
    fill(file, *file.gaps(30))
    file.path.write_bytes(CONTENT + b"more")
    file.reserve()
    assert file.check(executor) == 0
    assert file.path.read_bytes() == CONTENT


def test_line_that_a_power_cut_has_torn_costs_its_own_range_only(file: RangedFile, executor: Executor):
    fill(file, (0, 30), (30, 30))
    file.list_path.write_text(file.list_path.read_text()[:-2])
    assert file.gaps(100) == [(30, 70)]
    file.check(executor)
    fill(file, (30, 70))
    assert file.gaps(100) == []


def test_space_is_taken_before_anything_is_filled(file: RangedFile, tmp_path: Path):
    assert file.num_missing_bytes() == 0
    assert RangedFile(tmp_path / "other", tmp_path / "other list", num_bytes=7).num_missing_bytes() == 7


def test_file_without_bytes_is_made(tmp_path: Path):
    file = RangedFile(tmp_path / "empty", tmp_path / "empty list", num_bytes=0)
    file.reserve()
    assert file.gaps(10) == []
    assert file.path.read_bytes() == b""
