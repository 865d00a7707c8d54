"""Rows with the URI of an image -> rows with its encoded bytes.

It does not look into the bytes: whether they are an image is found out by the decoder.
"""

import dataclasses
import hashlib
import random
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.parquet_members import MemberReader, parse_bytes_member
from pipeline.storage import StorageError, open_store, shown_uri
from pipeline.uri_policy import UriPolicy
from schemas.errors import ErrorKind, RowError
from schemas.rows import ENCODED_COLUMN, ImageRow, rows_of, to_columns

_NO_URIS = UriPolicy()


class FetchImage:
    """A stage: block `{row, carried}` -> block `{row, carried, encoded}`, same rows, same order.

    A row that cannot be fetched keeps the reason in `error` and has `encoded` b""; so does one that had
    failed before. Only kinds that are not permanent are tried again. Bytes in tables are read by one reader
    that keeps its place, so blocks should hold consecutive rows. Can be pickled until it is first called; one
    call at a time.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        image_column: str | None,
        uri_policy: UriPolicy = _NO_URIS,
        num_threads: int = 16,
        max_attempts: int = 3,
        backoff_s: float = 0.5,
    ) -> None:
        """
        Args:
            max_bytes: larger images fail with TOO_MANY_BYTES; objects are measured before they are read.
            image_column: of tables; None if the images are files.
            uri_policy: which URIs that stand in tables are followed; by default none.
            max_attempts: how often one image is asked for, on top of the retries of the store's own client.
            backoff_s: about how long the first wait between two attempts is; each later one is twice as long.
        """
        self._max_bytes = max_bytes
        self._uri_policy = uri_policy
        self._num_threads = num_threads
        self._max_attempts = max_attempts
        self._backoff_s = backoff_s
        self._members = MemberReader(image_column) if image_column is not None else None
        self._threads: ThreadPoolExecutor | None = None

    def __call__(self, block: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        rows = rows_of(block)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._num_threads, thread_name_prefix="fetch")
        files = {
            position: self._threads.submit(self._fetched, row, self._read_file)
            for position, row in enumerate(rows)
            if parse_bytes_member(row.member) is None
        }
        fetched = [
            files[position].result() if position in files else self._fetched(row, self._read_member)
            for position, row in enumerate(rows)
        ]
        return to_columns([row for row, _ in fetched], **{ENCODED_COLUMN: [encoded for _, encoded in fetched]})

    def _fetched(self, row: ImageRow, read: Callable[[ImageRow], bytes]) -> tuple[ImageRow, bytes]:
        if row.error is not None:
            return row, b""
        try:
            encoded = self._with_retries(row, read)
            if not encoded:
                raise StorageError(ErrorKind.EMPTY, f"{shown_uri(row.image_uri)}: there are no bytes")
        except StorageError as error:
            return row.failed(RowError(kind=error.kind, message=str(error))), b""
        return dataclasses.replace(row, image_sha256=hashlib.sha256(encoded).hexdigest()), encoded

    def _with_retries(self, row: ImageRow, read: Callable[[ImageRow], bytes]) -> bytes:
        for attempt in range(self._max_attempts - 1):
            try:
                return read(row)
            except StorageError as error:
                if error.kind.permanent:
                    raise
            # Spread out, so that the threads of many actors do not come back to a busy store all at once.
            time.sleep(self._backoff_s * 2**attempt * random.uniform(0.5, 1.5))
        return read(row)

    def _read_file(self, row: ImageRow) -> bytes:
        if row.member:  # the row of a table, which names the image by a URI
            return self._uri_policy.get(row.image_uri, max_bytes=self._max_bytes)
        return open_store(row.image_uri).get(row.image_uri, max_bytes=self._max_bytes, version=row.version)

    def _read_member(self, row: ImageRow) -> bytes:
        place = parse_bytes_member(row.member)
        assert place is not None, f"{row.member!r} is not the member of a table"
        assert self._members is not None, f"{row.image_uri} lies in a table, so image_column is needed"
        table_uri = row.image_uri.rpartition("#")[0]
        encoded = self._members.read(table_uri, version=row.version, row_group=place[0], row=place[1])
        if len(encoded) > self._max_bytes:
            raise StorageError(
                ErrorKind.TOO_MANY_BYTES,
                f"{row.image_uri}: {len(encoded)} bytes, more than limits.max_bytes = {self._max_bytes}",
            )
        return encoded
