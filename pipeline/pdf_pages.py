"""The URI of a PDF document and the number of a page -> that page as an image file.

Fetches a document once for neighbouring pages, and renders several pages at the same time, in processes of their own.
"""

import os
import re
import threading
from collections import OrderedDict
from concurrent.futures import Future

from pipeline.patience import Patience
from pipeline.pdf_protocol import PdfSettings
from pipeline.pdf_sandbox import PdfSandbox, RenderedPage
from pipeline.storage import StorageError, open_store
from schemas.errors import ErrorKind
from schemas.job import LimitsSpec, SourceSpec

KEPT_BYTES = 64 << 20
"""Of documents whose last page may not have come; the last document is kept in any case."""
_MEMBER = re.compile(r"page:(\d+)")


def page_member(number: int) -> str:
    """The `member` of a page of a PDF document, the first having number 1."""
    return f"page:{number}"


def parse_page_member(member: str) -> int | None:
    """The number of a `page_member`; None for any other."""
    found = _MEMBER.fullmatch(member)
    return int(found.group(1)) if found else None


def pdf_settings(source: SourceSpec, limits: LimitsSpec) -> PdfSettings:
    return PdfSettings(
        dpi=source.pdf_dpi,
        max_pixels=limits.max_pixels,
        timeout_s=limits.decode_timeout_s,
        memory_mb=limits.decode_memory_mb,
    )


def num_pdf_processes() -> int:
    """That render at the same time on this machine: a quarter of its cores, as tiling needs them more."""
    return max(1, min(8, (os.cpu_count() or 1) // 4))


class PdfPages:
    """Reads pages once it is open; several threads may ask at once. Until then it can be pickled."""

    def __init__(
        self, settings: PdfSettings, *, max_bytes: int, patience: Patience, num_processes: int | None = None
    ) -> None:
        """
        Args:
            max_bytes: larger documents fail with TOO_MANY_BYTES; they are measured before they are read.
            num_processes: by default `num_pdf_processes()`.
        """
        self._settings, self._max_bytes, self._patience = settings, max_bytes, patience
        self._num_processes = num_processes or num_pdf_processes()
        self._state: _State | None = None

    def read(self, file_uri: str, *, version: str, page: int) -> RenderedPage:
        """
        Raises:
            StorageError: as `Store.get`.
            RowFailure, SandboxError: as `PdfSandbox.render`.
        """
        state = self._state
        assert state is not None, "it was opened"
        document = self._document(state, file_uri, version)
        sandbox = state.take_sandbox(document)
        try:
            return sandbox.render(document, page)
        finally:
            state.give_back(sandbox)

    def open(self) -> None:
        """To be called before pages are asked for. Starts nothing."""
        self._state = self._state or _State(self._settings, self._num_processes)

    def close(self) -> None:
        """Ends the processes and forgets the documents, while no page is asked for."""
        if self._state is not None:
            self._state.close()
            self._state = None

    def _document(self, state: "_State", uri: str, version: str) -> bytes:
        document, is_mine = state.document(uri, version)
        if is_mine:
            try:
                store = open_store(uri, patience=self._patience)
                encoded = store.get(uri, max_bytes=self._max_bytes, version=version)
                if not encoded:
                    raise StorageError(ErrorKind.EMPTY, f"{uri}: there are no bytes")
            except Exception as error:  # noqa: BLE001 - whoever else waits for the document gets it as well
                state.forget(uri, version)
                document.set_exception(error)
            else:
                document.set_result(encoded)
                state.forget_old()
        return document.result()


class _State:
    """What threads share: documents, each fetched by the first that asks for it, and the processes that are free."""

    def __init__(self, settings: PdfSettings, num_processes: int) -> None:
        self._lock = threading.Lock()
        self._is_free = threading.Condition(self._lock)
        self._documents: OrderedDict[tuple[str, str], Future[bytes]] = OrderedDict()
        self._sandboxes = [PdfSandbox(settings) for _ in range(num_processes)]
        self._free = list(self._sandboxes)

    def document(self, uri: str, version: str) -> tuple[Future[bytes], bool]:
        """And whether the caller has to fetch it."""
        with self._lock:
            is_new = (uri, version) not in self._documents
            document = self._documents.setdefault((uri, version), Future())
            self._documents.move_to_end((uri, version))
            return document, is_new

    def forget(self, uri: str, version: str) -> None:
        with self._lock:
            self._documents.pop((uri, version), None)

    def forget_old(self) -> None:
        """Those that were asked for longest ago, beyond `KEPT_BYTES`."""
        with self._lock:
            num_bytes = 0
            for key, document in reversed(list(self._documents.items())):
                if document.done():
                    num_bytes += len(document.result())
                    if num_bytes > KEPT_BYTES and key != next(reversed(self._documents)):
                        del self._documents[key]

    def take_sandbox(self, document: bytes) -> PdfSandbox:
        """One that has the document, if such a one is free."""
        with self._is_free:
            while not self._free:
                self._is_free.wait()
            chosen = next((one for one in self._free if one.holds(document)), self._free[0])
            self._free.remove(chosen)
            return chosen

    def give_back(self, sandbox: PdfSandbox) -> None:
        with self._is_free:
            self._free.append(sandbox)
            self._is_free.notify()

    def close(self) -> None:
        for sandbox in self._sandboxes:
            sandbox.close()
