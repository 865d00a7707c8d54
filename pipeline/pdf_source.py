"""PDF files -> one row for each of their pages. The files are read whole, to be counted in processes of their own.

A row's `place` is `file_uri#number`, from 1; its image is named `file_uri#page=number`, its `member` `page:number`.
A file that cannot be read as a document is one row, with number 0 and its reason; once it can be read (it was replaced,
or a limit was raised), its pages are new rows.
"""

import posixpath
from collections.abc import Callable, Iterator, Sequence
from queue import SimpleQueue

import pyarrow as pa

from pipeline.pdf_pages import page_member
from pipeline.pdf_protocol import PdfSettings
from pipeline.pdf_sandbox import PdfSandbox
from pipeline.read_ahead import in_order
from pipeline.source import SourceRow
from pipeline.storage import ObjectInfo, StorageError, open_store
from schemas.errors import ErrorKind, RowError, RowFailure
from schemas.rows import RowImage

COLUMNS = pa.schema([("pdf", pa.string()), ("page", pa.int32()), ("num_pages", pa.int32())])
"""What can be carried along: the name of the file, the number of the page from 1, and how many there are."""
_FILES_AT_ONCE = 4
"""Each is held in memory twice: here, and in the process that counts its pages."""
_OF_ONE_FILE = (
    ErrorKind.UNREADABLE,
    ErrorKind.EMPTY,
    ErrorKind.TOO_MANY_BYTES,
    ErrorKind.BAD_SAMPLE,
    ErrorKind.MISSING,
    ErrorKind.CHANGED,
)
"""Failures of the store that say nothing about other files."""


class PdfFiles:
    """A source whose images are pages of PDF files."""

    image_column: str | None = None

    def __init__(
        self,
        list_files: Callable[[], Iterator[ObjectInfo | None]],
        *,
        folder_uri: str,
        carry: Sequence[str] | None,
        settings: PdfSettings,
        max_bytes: int,
    ) -> None:
        """
        Args:
            list_files: every PDF file, in order, and None for each file that is ignored.
            carry: of `COLUMNS`; None for all of them.
            max_bytes: larger files are not read.

        Raises:
            ValueError: a column to carry that pages do not have.
        """
        self._list_files = list_files
        self.folder_uri = folder_uri
        self.num_ignored = 0
        self._settings, self._max_bytes = settings, max_bytes
        names = COLUMNS.names if carry is None else list(carry)
        for name in names:
            if name not in COLUMNS.names:
                raise ValueError(
                    f"source.carry: pages of PDF files have no column {name!r}; they have {', '.join(COLUMNS.names)}"
                )
        self.carried_schema = pa.schema([COLUMNS.field(name) for name in names]) if names else None

    def rows(self) -> Iterator[SourceRow]:
        self.num_ignored, num_rows = 0, 0
        sandboxes: SimpleQueue[PdfSandbox] = SimpleQueue()
        for _ in range(_FILES_AT_ONCE):
            sandboxes.put(PdfSandbox(self._settings))

        def counted(info: ObjectInfo | None) -> tuple[ObjectInfo, int | RowError] | None:
            if info is None:
                return None
            sandbox = sandboxes.get()
            try:
                return info, self._num_pages(sandbox, info)
            finally:
                sandboxes.put(sandbox)

        files = in_order(counted, self._list_files(), num_threads=_FILES_AT_ONCE, items_per_task=1)
        try:
            for file in files:
                if file is None:
                    self.num_ignored += 1
                    continue
                for row in self._rows_of(*file):
                    num_rows += 1
                    yield row
        finally:
            files.close()
            for _ in range(_FILES_AT_ONCE):
                sandboxes.get().close()
        if num_rows == 0:
            raise ValueError(f"no PDF file found at {self.folder_uri}")

    def _num_pages(self, sandbox: PdfSandbox, info: ObjectInfo) -> int | RowError:
        try:
            document = open_store(info.uri).get(info.uri, max_bytes=self._max_bytes, version=info.version)
            if not document:
                return RowError(kind=ErrorKind.EMPTY, message=f"{info.uri}: there are no bytes")
            return sandbox.num_pages(document)
        except StorageError as error:
            if error.kind not in _OF_ONE_FILE:
                raise
            return RowError(kind=error.kind, message=str(error))
        except RowFailure as failure:
            return RowError(kind=failure.error.kind, message=f"{info.uri}: {failure}")

    def _rows_of(self, info: ObjectInfo, num_pages: int | RowError) -> Iterator[SourceRow]:
        if isinstance(num_pages, RowError):
            yield SourceRow(
                images=(RowImage(uri=info.uri, version=info.version),),
                place=f"{info.uri}#0",
                error=num_pages,
                carried=self._carried(info, None, None),
            )
            return
        for page in range(1, num_pages + 1):
            image = RowImage(uri=f"{info.uri}#page={page}", version=info.version, member=page_member(page))
            carried = self._carried(info, page, num_pages)
            yield SourceRow(images=(image,), place=f"{info.uri}#{page}", carried=carried)

    def _carried(self, info: ObjectInfo, page: int | None, num_pages: int | None) -> bytes:
        if self.carried_schema is None:
            return b""
        values = {"pdf": posixpath.basename(info.uri), "page": page, "num_pages": num_pages}
        sink = pa.BufferOutputStream()
        with pa.ipc.new_stream(sink, self.carried_schema) as writer:
            columns = [pa.array([values[field.name]], field.type) for field in self.carried_schema]
            writer.write_batch(pa.record_batch(columns, schema=self.carried_schema))
        return sink.getvalue().to_pybytes()
