"""Rows of images -> the same rows with their images' sizes and grids, read from headers, or with why there are none.

Decodes no pixel. Headers, too, are read in the process for decoding: a hostile one costs its image and nothing else.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

from pipeline.fetch import FetchImage
from pipeline.patience import Patience
from pipeline.prepare import TileImage
from pipeline.storage import StorageError, open_store
from schemas.errors import ErrorKind, RowError
from schemas.rows import ENCODED_COLUMN, ImageRow, rows_of, to_columns

HEADER_BYTES = 64 << 10
"""Most headers end before; of a file whose header does not, all is read."""
_ROWS_AT_ONCE = 16
_NUM_THREADS = 16


def read_sizes(
    rows: Sequence[ImageRow], *, fetch: FetchImage, tile: TileImage, max_bytes: int, patience: Patience
) -> Iterator[ImageRow]:
    """Yields the rows in their order.

    Of a listed file the first `HEADER_BYTES` are read, by one ranged request where it lies on S3; images in tables, and
    those that a sample names, are fetched as a run would fetch them.

    Args:
        fetch: as of the run; reads what is no listed file, and files whose beginning does not tell.
        tile: with `headers_only`.
        max_bytes: of one encoded image.
        patience: with the store, for what is read here.
    """
    with ThreadPoolExecutor(_NUM_THREADS) as threads:

        def beginning(row: ImageRow) -> tuple[ImageRow, list[bytes]]:
            return _beginning(row, max_bytes, patience)

        for first in range(0, len(rows), _ROWS_AT_ONCE):
            some = list(rows[first : first + _ROWS_AT_ONCE])
            read = list(threads.map(beginning, some))
            told = rows_of(tile(to_columns([row for row, _ in read], **{ENCODED_COLUMN: [data for _, data in read]})))
            unclear = [place for place, row in enumerate(told) if _needs_all(some[place], row)]
            if unclear:
                whole = rows_of(tile(fetch(to_columns([some[place] for place in unclear]))))
                told = [dict(zip(unclear, whole, strict=True)).get(place, row) for place, row in enumerate(told)]
            yield from told


def _beginning(row: ImageRow, max_bytes: int, patience: Patience) -> tuple[ImageRow, list[bytes]]:
    """No bytes, and so an image that is not told yet, where the row is no listed file."""
    if row.error is not None:
        return row, []
    if not _is_listed_file(row):
        return dataclasses.replace(row, images=()), []
    uri = row.images[0].uri
    try:
        with open_store(uri, patience=patience).open(uri) as file:
            num_bytes = file.seek(0, 2)
            if num_bytes > max_bytes:
                message = f"{uri}: {num_bytes} bytes, more than limits.max_bytes = {max_bytes}"
                return row.failed(RowError(kind=ErrorKind.TOO_MANY_BYTES, message=message)), []
            file.seek(0)
            # Not through the file's buffer, which would ask the store for a megabyte.
            return row, [getattr(file, "raw", file).read(HEADER_BYTES)]
    except StorageError as error:
        return row.failed(RowError(kind=error.kind, message=str(error))), []


def _is_listed_file(row: ImageRow) -> bool:
    return len(row.images) == 1 and not row.place and not row.images[0].member


def _needs_all(row: ImageRow, told: ImageRow) -> bool:
    """Whether the row has images of which the first look could not tell, be it only that they begin too large."""
    if row.error is not None or not row.images:
        return False
    if not _is_listed_file(row):
        return True
    return told.error is not None and told.error.kind in _MAYBE_CUT_OFF


_MAYBE_CUT_OFF = {ErrorKind.TRUNCATED, ErrorKind.DECODER_FAILED, ErrorKind.UNREADABLE}
