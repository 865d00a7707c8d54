"""A PDF document -> the number of its pages, and each as PNG, by a process that may crash, hang or run out of memory.

Does not know what a PDF is: the child (`pipeline.pdf_child`) does. No document is looked into on this side.
"""

from dataclasses import dataclass
from typing import Any

from pipeline.child_process import ChildProcess, Sandbox
from pipeline.pdf_protocol import COUNT_PAGES, MAX_PAGES, PAGE_FLAGS, REQUEST_HEADER, PdfSettings
from schemas.errors import ErrorKind, RowFailure

_MAX_PNG_BYTES_PER_PIXEL = 4
_MAX_PNG_OVERHEAD_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class RenderedPage:
    encoded: bytes
    """PNG, as far as the child can be believed: it is decoded in a sandbox of its own."""
    flags: tuple[str, ...]
    """Of `PAGE_FLAGS`."""


class PdfSandbox:
    """One child that reads documents, see `Sandbox`. For one thread at a time.

    The child keeps the last document, so that several questions about one object of bytes send these once.
    """

    def __init__(self, settings: PdfSettings, *, child_module: str = "pipeline.pdf_child") -> None:
        self._sandbox = Sandbox(lambda: _PdfChild(settings, child_module))

    def holds(self, document: bytes) -> bool:
        """Whether the child has this very object already."""
        return self._sandbox.child is not None and self._sandbox.child.document is document

    def num_pages(self, document: bytes) -> int:
        """At least 1.

        Raises:
            RowFailure: UNREADABLE for what is no PDF, is damaged, encrypted or empty, BAD_SAMPLE for more than
                `MAX_PAGES`, or what `Sandbox.ask` raises.
            SandboxError: as `Sandbox.ask`.
        """
        num_pages = self._sandbox.ask(lambda child: child.num_pages(document))
        if num_pages > MAX_PAGES:
            raise RowFailure(ErrorKind.BAD_SAMPLE, f"says that it has {num_pages} pages; {MAX_PAGES} are believed")
        return num_pages

    def render(self, document: bytes, page: int) -> RenderedPage:
        """One page, the first having number 1.

        Raises:
            RowFailure: as `num_pages`; DECODER_FAILED for a page that is damaged; CHANGED where there is no such page.
            SandboxError: as `Sandbox.ask`.
        """
        return self._sandbox.ask(lambda child: child.render(document, page))

    def close(self) -> None:
        """Ends the child. The next document starts another one."""
        self._sandbox.close()


class _PdfChild(ChildProcess):
    what = "reading the document or rendering its page"

    def __init__(self, settings: PdfSettings, module: str) -> None:
        self.document: bytes | None = None
        """That the child holds."""
        self._max_png_bytes = _MAX_PNG_OVERHEAD_BYTES + _MAX_PNG_BYTES_PER_PIXEL * settings.max_pixels
        super().__init__(settings, module)

    def num_pages(self, document: bytes) -> int:
        def messages(deadline_s: float) -> int:
            num_pages = int(self._ask(document, COUNT_PAGES, deadline_s)["num_pages"])
            if num_pages < 1:
                raise ValueError(f"{num_pages} pages")
            return num_pages

        return self.exchange(messages)

    def render(self, document: bytes, page: int) -> RenderedPage:
        def messages(deadline_s: float) -> RenderedPage:
            fields = self._ask(document, page, deadline_s)
            num_bytes, flags = int(fields["num_bytes"]), tuple(fields["flags"])
            if not 0 < num_bytes <= self._max_png_bytes or not set(flags) <= set(PAGE_FLAGS):
                raise ValueError(f"{num_bytes} bytes and the flags {flags!r:.100}")
            return RenderedPage(encoded=bytes(self._receive(num_bytes, deadline_s)), flags=flags)

        return self.exchange(messages)

    def _ask(self, document: bytes, page: int, deadline_s: float) -> dict[str, Any]:
        is_there, self.document = self.document is document, None
        self._send(REQUEST_HEADER.pack(0 if is_there else len(document), page), deadline_s)
        if not is_there:
            self._send(document, deadline_s)
        fields = self._receive_fields(deadline_s)
        self.document = document
        return fields
