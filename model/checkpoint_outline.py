"""Where a checkpoint is -> a folder that tells what it is, without the weights having been moved.

    config.json ...        whole
    *.safetensors          of their full size, but of an object in a store only what `check` and `digest` look at: the
                           header, and the blocks that the digest samples; holes elsewhere, which take no disk

So the process that starts a run reads 4 MiB of a weight file and its header, not the file, and `check` and `digest`
need not know: the digest is that of the same files in a folder. Whoever runs the model asks `local_folder`.
"""

import contextlib
import hashlib
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from model.checkpoint_files import is_wanted, local_folder, sampled_ranges
from model.checkpoint_store import NUM_CONNECTIONS, CheckpointStore, StoreChanged, StoredFile

_MAX_CHANGES = 3
_LENGTH_BYTES = 8
_MAX_HEADER_BYTES = 100_000_000
"""Of safetensors itself; a file that claims more is refused when it is opened."""
_MAX_RANGE_BYTES = 8 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Outline:
    folder: Path
    objects: str | None = None
    """sha256 (hex) of the weight files' names, sizes and ETags, if they are objects in a store. It changes with every
    write, also where the digest does not sample; and with an upload of the same bytes in other parts."""


@contextlib.contextmanager
def outlined(path: str | Path) -> Iterator[Outline]:
    """The outline of a checkpoint, for the length of the block; `path` as for `local_folder`.

    What is here or comes from a hub is used where it lies. Raises ValueError as `local_folder` does; one that leaves
    the block names the store's URI in place of the outline's folder.
    """
    uri = str(path)
    if not uri.startswith("s3://"):
        yield Outline(folder=local_folder(path))
        return
    with tempfile.TemporaryDirectory(prefix="labelmill-checkpoint-") as name:
        objects = _fetch(uri, Path(name))
        try:
            yield Outline(folder=Path(name), objects=objects)
        except ValueError as error:
            raise ValueError(str(error).replace(name, uri.rstrip("/"))) from None


def _fetch(uri: str, folder: Path) -> str:
    try:
        for _ in range(_MAX_CHANGES):
            store = CheckpointStore(uri)
            stored = store.list_files(is_wanted)
            with contextlib.suppress(StoreChanged):
                _fetch_files(store, stored, folder)
                if store.list_files(is_wanted) == stored:
                    return _sha256_of(stored)
            for file in folder.iterdir():
                file.unlink()
    except OSError as error:
        raise ValueError(
            f"the outline of checkpoint {uri!r} cannot be in {folder.parent} ({error}): TMPDIR names another folder"
        ) from None
    raise ValueError(f"checkpoint {uri!r} changed {_MAX_CHANGES} times while it was read: wait for its upload to end")


def _fetch_files(store: CheckpointStore, stored: Sequence[StoredFile], folder: Path) -> None:
    with ThreadPoolExecutor(NUM_CONNECTIONS, "outline") as executor:
        try:
            ranges_by_file = executor.map(lambda file: _ranges(store, file), stored)
            begun = []
            for file, ranges in zip(stored, ranges_by_file, strict=True):
                local = folder / file.name
                with local.open("wb") as stream:
                    stream.truncate(file.num_bytes)
                begun += [executor.submit(_fetch_range, store, file, local, *of_file) for of_file in ranges]
            for future in begun:
                future.result()
        except BaseException:
            store.close()
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _fetch_range(store: CheckpointStore, file: StoredFile, local: Path, offset: int, num_bytes: int) -> None:
    data = store.read_range(file, offset, num_bytes)
    with local.open("r+b") as stream:
        stream.seek(offset)
        stream.write(data)


def _ranges(store: CheckpointStore, file: StoredFile) -> list[tuple[int, int]]:
    """(offset, bytes) of what is read of a file."""
    if not file.name.endswith(".safetensors"):
        return _split([(0, file.num_bytes)])
    wanted = sampled_ranges(file.num_bytes)
    if file.num_bytes > _LENGTH_BYTES:
        header_bytes = int.from_bytes(store.read_range(file, 0, _LENGTH_BYTES), "little")
        if header_bytes <= min(_MAX_HEADER_BYTES, file.num_bytes - _LENGTH_BYTES):
            wanted.append((0, _LENGTH_BYTES + header_bytes))
    return _split(_merged(wanted))


def _merged(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Of ranges that meet or overlap, one."""
    merged: list[tuple[int, int]] = []
    for offset, num_bytes in sorted(ranges):
        end = offset + num_bytes
        if merged and offset <= sum(merged[-1]):
            first, length = merged[-1]
            merged[-1] = (first, max(first + length, end) - first)
        else:
            merged.append((offset, num_bytes))
    return merged


def _split(ranges: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    return [
        (begin, min(_MAX_RANGE_BYTES, offset + num_bytes - begin))
        for offset, num_bytes in ranges
        for begin in range(offset, offset + num_bytes, _MAX_RANGE_BYTES)
    ]


def _sha256_of(stored: Iterable[StoredFile]) -> str:
    weights = [file for file in stored if file.name.endswith(".safetensors")]
    told = "".join(f"{file.name}\0{file.etag}\0{file.num_bytes}\0" for file in weights)
    return hashlib.sha256(told.encode()).hexdigest()
