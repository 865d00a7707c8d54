"""A file that is filled range by range, in any order and by many threads, and a list of what has been filled.

The list is a text file with a line `sha256 offset length` per range that is in the file. A line is written after its
range, so that a list may lack the last ranges before a kill but names none that was not written. Whether the bytes are
still those is for `check` to see: after a power cut, or when somebody has touched the file, they need not be.
"""

import contextlib
import hashlib
import os
import re
import threading
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path

_LINE = re.compile(r"([0-9a-f]{64}) (\d+) (\d+)\n")
_BLOCK_BYTES = 512  # the unit of st_blocks, whatever the file system's is


@dataclass(frozen=True, kw_only=True)
class FilledRange:
    sha256: str
    offset: int
    num_bytes: int


class RangedFile:
    """`path` with its list at `list_path`; both may exist from an earlier attempt, or not."""

    def __init__(self, path: Path, list_path: Path, *, num_bytes: int) -> None:
        self.path, self.list_path, self.num_bytes = path, list_path, num_bytes
        self._appending = threading.Lock()

    def num_filled_bytes(self) -> int:
        """According to the list."""
        return sum(filled.num_bytes for filled in self._read_list())

    def num_missing_bytes(self) -> int:
        """What the file will take from the disk beside what it has taken."""
        try:
            return max(0, self.num_bytes - self.path.stat().st_blocks * _BLOCK_BYTES)
        except FileNotFoundError:
            return self.num_bytes

    def reserve(self) -> None:
        """Takes the whole file from the disk, and gives back what is too much. Raises OSError if the disk is full."""
        with self._opened() as descriptor:
            if self.num_bytes:
                os.posix_fallocate(descriptor, 0, self.num_bytes)
            os.ftruncate(descriptor, self.num_bytes)

    def check(self, executor: Executor) -> int:
        """Strikes from the list what the file does not hold; returns how many ranges that were."""
        listed = self._read_list()
        intact = [filled for filled, good in zip(listed, executor.map(self._holds, listed), strict=True) if good]
        self._write_list(intact)  # without lines that were cut off, too: another would be joined to them
        return len(listed) - len(intact)

    def gaps(self, range_bytes: int) -> list[tuple[int, int]]:
        """(offset, number of bytes) of what is not on the list, in pieces of at most `range_bytes`."""
        pieces, position = [], 0
        for start, end in [*self._filled_spans(), (self.num_bytes, self.num_bytes)]:
            pieces += [(at, min(range_bytes, start - at)) for at in range(position, start, range_bytes)]
            position = max(position, end)
        return pieces

    def fill(self, offset: int, data: bytes) -> None:
        """Raises OSError if the disk is full, which `reserve` rules out on most file systems."""
        with self._opened() as descriptor:
            view, at = memoryview(data), offset
            while view:
                num_written = os.pwrite(descriptor, view, at)
                view, at = view[num_written:], at + num_written
        line = f"{hashlib.sha256(data).hexdigest()} {offset} {len(data)}\n"
        with self._appending, self.list_path.open("a", encoding="ascii") as stream:
            stream.write(line)

    def forget(self) -> None:
        """Lets the whole file be filled again."""
        self.list_path.unlink(missing_ok=True)

    def _filled_spans(self) -> list[tuple[int, int]]:
        return [(filled.offset, filled.offset + filled.num_bytes) for filled in self._read_list()]

    def _holds(self, filled: FilledRange) -> bool:
        try:
            with self.path.open("rb") as stream:
                stream.seek(filled.offset)
                return hashlib.sha256(stream.read(filled.num_bytes)).hexdigest() == filled.sha256
        except FileNotFoundError:
            return False

    def _read_list(self) -> list[FilledRange]:
        """Sorted by offset. A line that was cut off, or is none, is passed over: its range will be filled again."""
        try:
            text = self.list_path.read_text("ascii", errors="replace")
        except FileNotFoundError:
            return []
        lines = (_LINE.fullmatch(line) for line in text.splitlines(keepends=True))
        listed = [FilledRange(sha256=m[1], offset=int(m[2]), num_bytes=int(m[3])) for m in lines if m]
        inside = [filled for filled in listed if filled.offset + filled.num_bytes <= self.num_bytes]
        return sorted(inside, key=lambda filled: filled.offset)

    def _write_list(self, ranges: list[FilledRange]) -> None:
        new = self.list_path.with_name(self.list_path.name + ".new")
        new.write_text("".join(f"{filled.sha256} {filled.offset} {filled.num_bytes}\n" for filled in ranges), "ascii")
        new.replace(self.list_path)

    @contextlib.contextmanager
    def _opened(self) -> Iterator[int]:
        descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
