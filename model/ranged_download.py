"""Files of a store -> the same files here, many ranges at a time, the ones that are here already left out.

Every range is checked when it is found here, and every file as a whole when it has been fetched. Knows no folder layout
and no locks: nobody else may be writing to these files.
"""

import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass

from model.checkpoint_store import NUM_CONNECTIONS, CheckpointStore, StoredFile
from model.object_checksum import sha256_of
from model.ranged_file import RangedFile

NUM_HASHERS = 4
RANGE_BYTES = 8 * 1024 * 1024
"""Large enough for a store's full speed on one connection, small enough to lose little when killed."""
PROGRESS_EVERY_S = 30.0

_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Download:
    stored: StoredFile
    local: RangedFile


def check_and_fetch(store: CheckpointStore, downloads: Sequence[Download], *, were_whole: bool) -> None:
    """Makes every local file equal to the stored one. Their space must be reserved.

    Args:
        were_whole: the files had been compared with the store's checksums; those that lack nothing are not again.

    Raises StoreChanged if the store no longer has these files, ValueError if it does not answer or gives bytes that do
    not match its own checksum, OSError if the disk is full. Ranges that were filled until then stay filled.
    """
    with ThreadPoolExecutor(NUM_CONNECTIONS, "checkpoint") as fetching, ThreadPoolExecutor(NUM_HASHERS) as checking:
        try:
            damaged = sum(download.local.check(fetching) for download in downloads)
            if damaged:
                _log.warning("checkpoint %r: %d ranges here are damaged and are fetched again", store.uri, damaged)
            fetcher = _Fetcher(store, downloads, fetching)
            begun = [(download, fetcher.begin(download)) for download in downloads]
            checks = []
            for download, ranges in begun:
                _wait(ranges)
                if ranges or not were_whole:
                    checks.append(checking.submit(_check_whole, fetcher, download))
            _wait(checks)
        except BaseException:
            store.close()
            fetching.shutdown(wait=False, cancel_futures=True)
            checking.shutdown(wait=False, cancel_futures=True)
            raise


def _wait(futures: "Sequence[Future[None]]") -> None:
    for future in futures:
        future.result()


class _Fetcher:
    """Ranges that are fetched on many threads, and how far they are."""

    def __init__(self, store: CheckpointStore, downloads: Sequence[Download], executor: Executor) -> None:
        self.store, self._executor = store, executor
        self._num_bytes = sum(download.stored.num_bytes for download in downloads)
        self._num_filled_bytes = sum(download.local.num_filled_bytes() for download in downloads)
        self._guard, self._said_s = threading.Lock(), time.monotonic()

    def begin(self, download: Download) -> "list[Future[None]]":
        """Everything that the file lacks."""
        return [self._executor.submit(self._fetch, download, *gap) for gap in download.local.gaps(RANGE_BYTES)]

    def _fetch(self, download: Download, offset: int, num_bytes: int) -> None:
        download.local.fill(offset, self.store.read_range(download.stored, offset, num_bytes))
        with self._guard:
            self._num_filled_bytes += num_bytes
            if time.monotonic() - self._said_s > PROGRESS_EVERY_S:
                self._said_s = time.monotonic()
                here_gb, all_gb = self._num_filled_bytes / 1e9, self._num_bytes / 1e9
                _log.info("checkpoint %r: %.1f of %.1f GB are here", self.store.uri, here_gb, all_gb)


def _check_whole(fetcher: _Fetcher, download: Download) -> None:
    """Against the store's checksum. A file that differs is fetched once more, in case the damage is on our side."""
    checksum = fetcher.store.checksum(download.stored)
    if checksum is None or checksum.matches(download.local.path):
        return
    where = f"checkpoint {fetcher.store.uri!r}: {download.stored.name}"
    _log.warning("%s has not the %s that its store keeps of it; fetching it again", where, checksum.algorithm)
    first = sha256_of(download.local.path)
    download.local.forget()
    _wait(fetcher.begin(download))
    if checksum.matches(download.local.path):
        return
    if checksum.is_promise or sha256_of(download.local.path) != first:
        download.local.forget()
        raise ValueError(
            f"{where} was fetched twice and has not the {checksum.algorithm} that its store keeps of it "
            f"({checksum.value}): upload it again"
        )
    _log.warning("%s came twice with the same bytes: its ETag is no MD5 of them", where)
