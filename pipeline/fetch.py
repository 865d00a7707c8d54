"""Rows with the URI of an image -> rows with its encoded bytes.

It does not look into the bytes: whether they are an image is found out by the decoder.
"""

import dataclasses
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from pipeline.parquet_members import MemberReader, parse_bytes_member
from pipeline.patience import Patience
from pipeline.storage import StorageError, open_store, shown_uri
from pipeline.uri_policy import UriPolicy
from schemas.errors import ErrorKind, RowError
from schemas.rows import ENCODED_COLUMN, ImageRow, rows_of, to_columns

_NO_URIS = UriPolicy()


class FetchImage:
    """A stage: block `{row, carried}` -> block `{row, carried, encoded}`, same rows, same order.

    A row that cannot be fetched keeps the reason in `error` and has `encoded` b""; so does one that had
    failed before. What may pass is waited out by the store (`pipeline.patience`), less long for an object that fails
    while others do not, so that it does not hold up its block. Bytes in tables are read by one reader
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
        patience: Patience | None = None,
    ) -> None:
        """
        Args:
            max_bytes: larger images fail with TOO_MANY_BYTES; objects are measured before they are read.
            image_column: of tables; None if the images are files.
            uri_policy: which URIs that stand in tables are followed; by default none.
            patience: with transient failures of the store; by default `Patience.among_others()`.
        """
        self._max_bytes = max_bytes
        self._uri_policy = uri_policy
        self._num_threads = num_threads
        self._patience = patience or Patience.among_others()
        self._members = MemberReader(image_column, patience=self._patience) if image_column is not None else None
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
            encoded = read(row)
            if not encoded:
                raise StorageError(ErrorKind.EMPTY, f"{shown_uri(row.image_uri)}: there are no bytes")
        except StorageError as error:
            return row.failed(RowError(kind=error.kind, message=str(error))), b""
        return dataclasses.replace(row, image_sha256=hashlib.sha256(encoded).hexdigest()), encoded

    def _read_file(self, row: ImageRow) -> bytes:
        if row.member:  # the row of a table, which names the image by a URI
            return self._uri_policy.get(row.image_uri, max_bytes=self._max_bytes, patience=self._patience)
        store = open_store(row.image_uri, patience=self._patience)
        return store.get(row.image_uri, max_bytes=self._max_bytes, version=row.version)

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
