"""The program of a process that reads PDF documents: documents in at its standard input, pages as PNG out of it again.

Started by `pipeline.pdf_sandbox`. It holds one document, so that its pages cost its bytes once. It renders what a
reader of the document sees: annotations and filled-in forms, layers that are shown, turned as the page says, on white.
Scripts of a document are not run: this pdfium has none.
"""

import io
import json
import math
import socket
import sys

import pypdfium2 as pdfium
import pypdfium2.raw as pdfium_c
from PIL import Image, ImageChops

from pipeline.child_program import receive_exactly, send_fields, serve
from pipeline.pdf_protocol import COUNT_PAGES, PAGE_SCALED, REQUEST_HEADER, PdfSettings
from schemas.errors import ErrorKind, RowFailure

_POINTS_PER_INCH = 72
_MAX_SIDE_PT = 1e9
_PNG_LEVEL = 1
"""The tiler decodes it again at once: higher levels take longer than they save."""
_REASONS = {
    pdfium_c.FPDF_ERR_FORMAT: "it is no PDF document, or is damaged beyond repair",
    pdfium_c.FPDF_ERR_PASSWORD: "it is encrypted, and needs a password",
    pdfium_c.FPDF_ERR_SECURITY: "it is encrypted in a way that is not supported",
}

_Request = tuple[bytes, int]


class PdfReader:
    """One document at a time, and its pages."""

    def __init__(self, settings: PdfSettings) -> None:
        self._settings = settings
        self._document: pdfium.PdfDocument | None = None
        self._encoded = b""
        """Of the document: pdfium reads it again and again."""

    def open(self, encoded: bytes) -> None:
        """Raises RowFailure UNREADABLE."""
        if self._document is not None:
            self._document.close()
            self._document = None
        # The helper would ask for the last error where there are no pages, and be told that of an earlier document.
        opened = pdfium_c.FPDF_LoadMemDocument64(encoded, len(encoded), None)
        if not opened:
            raise _unreadable(_REASONS.get(pdfium_c.FPDF_GetLastError(), "it cannot be opened"))
        document, self._encoded = pdfium.PdfDocument(opened), encoded
        if len(document) < 1:
            document.close()
            raise _unreadable("it has no pages, or they cannot be found")
        try:
            document.init_forms()  # before any page; does nothing where there is no form
        except pdfium.PdfiumError as error:
            document.close()
            raise _unreadable(f"its form cannot be set up ({error})") from error
        self._document = document

    def num_pages(self) -> int:
        assert self._document is not None, "a document is sent before it is asked about"
        return len(self._document)

    def render(self, number: int) -> tuple[bytes, tuple[str, ...]]:
        """One page as PNG, the first having number 1, and its flags. Raises RowFailure."""
        assert self._document is not None, "a document is sent before its pages are asked for"
        if number > len(self._document):
            raise RowFailure(ErrorKind.CHANGED, f"the document has {len(self._document)} pages, no page {number}")
        try:
            page = self._document[number - 1]
            try:
                return self._rendered(page)
            finally:
                page.close()
        except pdfium.PdfiumError as error:
            raise RowFailure(ErrorKind.DECODER_FAILED, f"page {number} cannot be rendered ({error})") from error
        except MemoryError:
            raise RowFailure(ErrorKind.DECODER_OUT_OF_MEMORY, f"page {number} for which memory ran out") from None

    def _rendered(self, page: pdfium.PdfPage) -> tuple[bytes, tuple[str, ...]]:
        width_pt, height_pt = page.get_size()
        if not (0 < width_pt < _MAX_SIDE_PT and 0 < height_pt < _MAX_SIDE_PT):
            raise RowFailure(ErrorKind.DECODER_FAILED, f"the page measures {width_pt} x {height_pt} points")
        scale = self._settings.dpi / _POINTS_PER_INCH
        fitting = scale_that_fits(width_pt, height_pt, scale, self._settings.max_pixels)
        bitmap = page.render(scale=fitting, rev_byteorder=True)
        image = bitmap.to_pil()
        try:
            return _png(image), (PAGE_SCALED,) if fitting < scale else ()
        finally:
            bitmap.close()


def _unreadable(reason: str) -> RowFailure:
    return RowFailure(ErrorKind.UNREADABLE, f"not a readable PDF document: {reason}")


def scale_that_fits(width_pt: float, height_pt: float, scale: float, max_pixels: int) -> float:
    """The scale, or the largest one below it at which the page, rounded up to whole pixels, has no more of them."""
    if _num_pixels(width_pt, height_pt, scale) <= max_pixels:
        return scale
    low, high = 0.0, scale
    for _ in range(64):
        middle = (low + high) / 2
        low, high = (middle, high) if _num_pixels(width_pt, height_pt, middle) <= max_pixels else (low, middle)
    return low


def run() -> None:
    """Answers requests until the sandbox closes its end. The settings are the program's one argument, as JSON."""
    settings = PdfSettings(**json.loads(sys.argv[1]))
    reader = PdfReader(settings)
    Image.init()  # loads what writes PNG, while files can be opened

    def reply(channel: socket.socket, request: _Request) -> None:
        _reply(channel, request, reader)

    serve(_receive, reply, timeout_s=settings.timeout_s, memory_mb=settings.memory_mb)


def _num_pixels(width_pt: float, height_pt: float, scale: float) -> int:
    return math.ceil(width_pt * scale) * math.ceil(height_pt * scale)


def _png(image: Image.Image) -> bytes:
    """Of one channel where the page is grey, as most are: a third of the time, and half of the bytes."""
    sink = io.BytesIO()
    (image.convert("L") if _is_grey(image) else image).save(sink, "PNG", compress_level=_PNG_LEVEL)
    return sink.getvalue()


def _is_grey(image: Image.Image) -> bool:
    red, green, blue = image.split()
    # The box around what differs; there is none where nothing does.
    return ImageChops.difference(red, green).getbbox() is None and ImageChops.difference(green, blue).getbbox() is None


def _receive(channel: socket.socket) -> _Request | None:
    header = receive_exactly(channel, REQUEST_HEADER.size)
    if header is None:
        return None
    num_bytes, page = REQUEST_HEADER.unpack(header)
    document = receive_exactly(channel, num_bytes)
    return None if document is None else (document, page)


def _reply(channel: socket.socket, request: _Request, reader: PdfReader) -> None:
    document, page = request
    try:
        if document:
            reader.open(document)
        if page == COUNT_PAGES:
            send_fields(channel, {"num_pages": reader.num_pages()})
            return
        encoded, flags = reader.render(page)
    except RowFailure as failure:
        send_fields(channel, {"kind": failure.error.kind, "message": failure.error.message})
    else:
        send_fields(channel, {"num_bytes": len(encoded), "flags": flags})
        channel.sendall(encoded)


if __name__ == "__main__":
    run()
