"""What both ends of the socket of a process that reads PDF documents know; see `pipeline.pdf_child`.

A request is 8 bytes of the document's length, 0 for the one before, 4 of the number of a page, 0 to be told how many
there are, and the document. A reply is that of `pipeline.child_program`: {"num_pages"}, or {"num_bytes", "flags"} and
the page as PNG.
"""

import struct
from dataclasses import dataclass

REQUEST_HEADER = struct.Struct(">QI")
COUNT_PAGES = 0
"""In the place of a page's number."""
MAX_PAGES = 100_000
"""A document that says it has more is not believed: its pages would be a hundred thousand rows of failures."""
PAGE_SCALED = "page_scaled"
"""A flag: the page would have had more than `max_pixels`, and was rendered at the largest dpi that fits."""
PAGE_FLAGS = (PAGE_SCALED,)


@dataclass(frozen=True, kw_only=True)
class PdfSettings:
    """How pages are rendered, and within which limits."""

    dpi: int
    max_pixels: int
    timeout_s: float
    """For one page, or for the number of pages."""
    memory_mb: int
    """MiB of address space, of which Python and pdfium take 100; the document is held in it."""
