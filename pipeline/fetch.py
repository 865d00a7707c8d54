"""Rows with the names of their images -> rows with the encoded bytes.

It does not look into the bytes: whether they are an image is found out by the decoder.
"""

import dataclasses
import functools
import hashlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from pipeline.parquet_members import MemberReader, parse_bytes_member
from pipeline.patience import Patience
from pipeline.range_member import parse_range_member, read_range
from pipeline.storage import StorageError, open_store, shown_uri
from pipeline.uri_policy import UriPolicy
from schemas.errors import ErrorKind, RowError
from schemas.rows import ENCODED_COLUMN, ImageRow, RowImage, rows_of, to_columns

_NO_URIS = UriPolicy()

Fetched = tuple[RowImage, bytes] | RowError
"""An image with its hash and its bytes, or why there are none."""


class FetchImage:
    """A stage: block `{row, carried}` -> block `{row, carried, encoded}`, same rows, same order.

    `encoded` is a list with the bytes of each image of the row. A row of which one image cannot be fetched keeps the
    reason in `error` and has an empty list; so does one that had failed before. What may pass is waited out by the
    store (`pipeline.patience`), less long for an object that fails while others do not, so that it does not hold up its
    block. Bytes in tables are read by one reader that keeps its place, so blocks should hold consecutive rows; all
    other images of a block are fetched at the same time. Can be pickled until it is first called; one call at a time.
    """

    def __init__(
        self,
        *,
        max_bytes: int,
        max_images: int = 16,
        image_column: str | None,
        uri_policy: UriPolicy = _NO_URIS,
        num_threads: int = 16,
        patience: Patience | None = None,
    ) -> None:
        """
        Args:
            max_bytes: larger images fail with TOO_MANY_BYTES; objects are measured before they are read.
            max_images: rows of more fail with TOO_MANY_IMAGES, before any of them is fetched.
            image_column: of tables; None if the images are files.
            uri_policy: which URIs that stand in tables are followed; by default none.
            patience: with transient failures of the store; by default `Patience.among_others()`.
        """
        self._max_bytes, self._max_images = max_bytes, max_images
        self._uri_policy = uri_policy
        self._num_threads = num_threads
        self._patience = patience or Patience.among_others()
        self._members = MemberReader(image_column, patience=self._patience) if image_column is not None else None
        self._threads: ThreadPoolExecutor | None = None

    def __call__(self, block: Mapping[str, Sequence[Any]]) -> dict[str, list[Any]]:
        rows = rows_of(block)
        if self._threads is None:
            self._threads = ThreadPoolExecutor(self._num_threads, thread_name_prefix="fetch")
        files = [self._started(row) for row in rows]
        fetched = [self._row_fetched(row, of_row) for row, of_row in zip(rows, files, strict=True)]
        return to_columns([row for row, _ in fetched], **{ENCODED_COLUMN: [encoded for _, encoded in fetched]})

    def _started(self, row: ImageRow) -> list[Future[Fetched] | None]:
        """One for each image, None where it lies in a table: those are read in order."""
        assert self._threads is not None
        if row.error is not None or len(row.images) > self._max_images:
            return []
        return [
            None if parse_bytes_member(image.member) else self._threads.submit(self._fetched, row, image)
            for image in row.images
        ]

    def _row_fetched(self, row: ImageRow, files: Sequence[Future[Fetched] | None]) -> tuple[ImageRow, list[bytes]]:
        if row.error is not None:
            return row, []
        if len(row.images) > self._max_images:
            message = f"the sample has {len(row.images)} images, more than limits.max_images = {self._max_images}"
            return row.failed(RowError(kind=ErrorKind.TOO_MANY_IMAGES, message=message)), []
        images, encoded = [], []
        for number, (image, file) in enumerate(zip(row.images, files, strict=True), start=1):
            fetched = self._fetched(row, image) if file is None else file.result()
            if isinstance(fetched, RowError):
                for other in files:
                    if other is not None:
                        other.cancel()
                return row.failed(fetched.of_image(number, len(row.images))), []
            images.append(fetched[0])
            encoded.append(fetched[1])
        return dataclasses.replace(row, images=tuple(images)), encoded

    def _fetched(self, row: ImageRow, image: RowImage) -> Fetched:
        try:
            encoded = self._reader(row, image)(image)
            if not encoded:
                raise StorageError(ErrorKind.EMPTY, f"{shown_uri(image.uri)}: there are no bytes")
        except StorageError as error:
            return RowError(kind=error.kind, message=str(error))
        return dataclasses.replace(image, sha256=hashlib.sha256(encoded).hexdigest()), encoded

    def _reader(self, row: ImageRow, image: RowImage) -> Callable[[RowImage], bytes]:
        """What lies in a container or was listed itself is the source's; any other URI was chosen by a sample."""
        if parse_range_member(image.member):
            # A place is the file's URI and a number; a name may hold any letters.
            return functools.partial(self._read_range, row.place.rpartition("#")[0])
        if image.member:
            return self._read_member
        return self._read_named if row.place else self._read_listed

    def _read_named(self, image: RowImage) -> bytes:
        return self._uri_policy.get(image.uri, max_bytes=self._max_bytes, patience=self._patience)

    def _read_listed(self, image: RowImage) -> bytes:
        store = open_store(image.uri, patience=self._patience)
        return store.get(image.uri, max_bytes=self._max_bytes, version=image.version)

    def _read_range(self, file_uri: str, image: RowImage) -> bytes:
        found = parse_range_member(image.member)
        assert found is not None, f"{image.member!r} is no range of bytes"
        return read_range(file_uri, *found, version=image.version, max_bytes=self._max_bytes, patience=self._patience)

    def _read_member(self, image: RowImage) -> bytes:
        place = parse_bytes_member(image.member)
        assert place is not None, f"{image.member!r} is not the member of a table"
        assert self._members is not None, f"{image.uri} lies in a table, so image_column is needed"
        table_uri = image.uri.rpartition("#")[0]
        encoded = self._members.read(table_uri, version=image.version, **place._asdict())
        if len(encoded) > self._max_bytes:
            raise StorageError(
                ErrorKind.TOO_MANY_BYTES,
                f"{image.uri}: {len(encoded)} bytes, more than limits.max_bytes = {self._max_bytes}",
            )
        return encoded
