"""A checkpoint in a store -> a folder of this machine that holds it, fetched once for all processes.

    $LABELMILL_CACHE/checkpoints/<name>-<hash of every object's name, ETag and size>/
        files/          what callers get; it has this name only while it is whole
        files.partial/  while it is not
        sha256/         of every file a list of ranges
        checked.json    when, and what the files looked like to the file system then
        work.lock, use.lock

Objects that change have another hash, so that files of two versions never meet in a folder. Ranks map the same files,
and share their pages. Knows the store and the parts of the download; not what is in the files.
"""

import hashlib
import json
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from model.checkpoint_locks import use, working_on
from model.checkpoint_space import make_room
from model.checkpoint_store import CheckpointStore, StoreChanged, StoredFile
from model.ranged_download import Download, check_and_fetch
from model.ranged_file import RangedFile

CHECK_EVERY_S = 24 * 3600.0
"""How long a file that looks the same to the file system is trusted to hold the same bytes."""

_MAX_CHANGES = 3
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def cached_folder(uri: str, is_wanted: Callable[[str], bool]) -> Path:
    """The local folder with the wanted objects directly under an s3:// prefix, as they are in the store now.

    It stays for as long as this process lives. While another process of the machine fetches it, this one waits, and
    says so in the log. Raises ValueError, saying why, if the store or the disk does not let it be.
    """
    root = cache_root() / "checkpoints"
    try:
        for _ in range(_MAX_CHANGES):
            store = CheckpointStore(uri)
            stored = store.list_files(is_wanted)
            try:
                return _Version(root, store, stored).complete(is_wanted)
            except StoreChanged:
                continue
    except OSError as error:
        raise ValueError(
            f"checkpoint {uri!r} cannot be kept in {root} ({error}): LABELMILL_CACHE names another folder; what was "
            "fetched is kept"
        ) from None
    raise ValueError(
        f"checkpoint {uri!r} changed {_MAX_CHANGES} times while it was fetched: wait for its upload to end"
    )


def cache_root() -> Path:
    return Path(os.environ.get("LABELMILL_CACHE") or "~/.cache/labelmill").expanduser().absolute()


class _Version:
    """The folder of one state of the objects."""

    def __init__(self, root: Path, store: CheckpointStore, stored: tuple[StoredFile, ...]) -> None:
        self._root, self._store, self._stored = root, store, stored
        self._folder = root / _folder_name(store, stored)
        self._files, self._partial = self._folder / "files", self._folder / "files.partial"
        self._lists, self._checked = self._folder / "sha256", self._folder / "checked.json"

    def complete(self, is_wanted: Callable[[str], bool]) -> Path:
        with working_on(self._folder, waits_for=self._progress):
            if not self._is_trusted():
                was_whole = self._files.is_dir()
                target = self._files if was_whole else self._partial
                for folder in (target, self._lists):
                    folder.mkdir(exist_ok=True)
                downloads = self._downloads(target)
                self._reserve(downloads)
                check_and_fetch(self._store, downloads, were_whole=was_whole)
                if self._store.list_files(is_wanted) != self._stored:
                    raise StoreChanged(self._store.uri)  # an upload goes on, and these files may be of two versions
                target.rename(self._files)
                self._note_checked()
            use(self._folder)
        return self._files

    def _downloads(self, target: Path) -> list[Download]:
        return [
            Download(
                stored=file, local=RangedFile(target / file.name, self._lists / file.name, num_bytes=file.num_bytes)
            )
            for file in self._stored
        ]

    def _reserve(self, downloads: list[Download]) -> None:
        """One checkpoint at a time, so that two do not count the same free bytes."""
        with working_on(self._root / ".space", waits_for=lambda: "it makes room in the cache"):
            missing = sum(download.local.num_missing_bytes() for download in downloads)
            make_room(self._root, missing, purpose=self._folder)
            for download in downloads:
                download.local.reserve()

    def _is_trusted(self) -> bool:
        try:
            checked = json.loads(self._checked.read_text("utf-8"))
            age_s = time.time() - checked["at_s"]
            return bool(checked["looks"] == self._looks() and 0 <= age_s < CHECK_EVERY_S)
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return False

    def _note_checked(self) -> None:
        new = self._checked.with_suffix(".new")
        new.write_text(json.dumps({"at_s": time.time(), "looks": self._looks()}), "utf-8")
        new.replace(self._checked)

    def _looks(self) -> dict[str, Any]:
        """Changes with every write to the files, and with a restart of the machine, which may have lost some."""
        stats = {file.name: (self._files / file.name).stat() for file in self._stored}
        boot_id = _BOOT_ID.read_text("ascii").strip() if _BOOT_ID.exists() else ""
        return {"boot": boot_id} | {
            name: [stat.st_ino, stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns] for name, stat in stats.items()
        }

    def _progress(self) -> str:
        here = sum(download.local.num_filled_bytes() for download in self._downloads(self._partial))
        total = sum(file.num_bytes for file in self._stored)
        return f"it fetches or checks {self._store.uri}, of which {here / 1e9:.1f} of {total / 1e9:.1f} GB are here"


def _folder_name(store: CheckpointStore, stored: tuple[StoredFile, ...]) -> str:
    """The same for all spellings of a prefix, and legible."""
    content = "".join(f"{file.name}\0{file.etag}\0{file.num_bytes}\0" for file in stored)
    version = hashlib.sha256(f"{store.bucket}\0{store.prefix}\0{content}".encode()).hexdigest()[:32]
    label = re.sub(r"[^A-Za-z0-9._-]", "-", store.prefix.rstrip("/").rpartition("/")[2] or store.bucket)
    return f"{label.lstrip('.')[:40]}-{version}"
