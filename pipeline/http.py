"""`http://` and `https://` URLs -> bytes, from the public internet only.

The URLs come out of tables, so they may name anything that this machine can reach: its own services, its neighbours,
the metadata service of its cloud. A host is therefore resolved here, every address of the answer must be public, and
the connection goes to one of those very addresses; at a redirect all of it happens again. Nothing of the environment is
used: no proxy, no password, no cookie.

It knows no images, and writes nothing: a page on the web is not a place for output.
"""

import contextlib
import functools
import http.client
import re
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from urllib.parse import urljoin, urlsplit

from pipeline.addresses import is_public, system_addresses
from pipeline.storage import ObjectInfo, StorageError, check_readable, shown_uri
from pipeline.web_url import DEFAULT_PORTS, WebUrl, parse_url
from schemas import __version__
from schemas.errors import ErrorKind

MAX_REDIRECTS = 3
_READ_BYTES = 1 << 18
_BUSY = (408, 425, 429)


@functools.cache
def default_tls_context() -> ssl.SSLContext:
    """Verifies certificate and host name against the system's authorities."""
    return ssl.create_default_context()


@dataclass(frozen=True, kw_only=True)
class HttpStore:
    """Files on public web servers. `version` is the ETag, else the time of the last change, else "".

    Raises `StorageError`, and nothing else. Can be pickled.
    """

    resolve: Callable[[str, int], Sequence[str]] = system_addresses
    """Host name and port -> numeric addresses. Its time is its own: no limit below covers it."""
    is_allowed: Callable[[str], bool] = is_public
    """Whether a numeric address may be connected to."""
    tls_context: Callable[[], ssl.SSLContext] = default_tls_context
    idle_timeout_s: float = 20
    """Longest silence of a server."""
    total_timeout_s: float = 120
    """From the first connection to the last byte, redirects included."""

    def head(self, uri: str) -> ObjectInfo:
        """Size (0 where the server does not say) and version, without the body."""
        with self._answer("HEAD", uri) as answer:
            return _info(uri, answer)

    def get(self, uri: str, *, max_bytes: int | None = None, version: str = "") -> bytes:
        """The whole file; `max_bytes` counts what really arrives.

        Raises:
            StorageError: as `Store.get`; FORBIDDEN for a host that is not public or cannot prove its name,
                UNSUPPORTED_URI for a URL, a redirect or an encoding that is not followed.
        """
        with self._answer("GET", uri) as answer:
            check_readable(_info(uri, answer), max_bytes=max_bytes, version=version)
            return _body(uri, answer, max_bytes)

    @contextlib.contextmanager
    def _answer(self, method: str, uri: str) -> Iterator[http.client.HTTPResponse]:
        deadline = time.monotonic() + self.total_timeout_s
        url = parse_url(uri)
        for _ in range(MAX_REDIRECTS + 1):
            with self._asked(method, url, deadline) as answer:
                target = _redirect_target(answer, url)
                if target is None:
                    _check_answer(answer, url)
                    yield answer
                    return
            url = target
        raise StorageError(ErrorKind.UNSUPPORTED_URI, f"{shown_uri(uri)}: more than {MAX_REDIRECTS} redirects")

    @contextlib.contextmanager
    def _asked(self, method: str, url: WebUrl, deadline: float) -> Iterator[http.client.HTTPResponse]:
        """One request and its answer, whatever that is."""
        headers = {"Host": url.host_header, "User-Agent": f"labelmill/{__version__}", "Accept": "*/*"}
        headers |= {"Accept-Encoding": "identity", "Connection": "close"}
        with _http_errors(url, deadline), self._connected(url, deadline) as connected:
            connection = http.client.HTTPConnection(url.host, url.port)
            connection.sock = connected  # so that it does not look up the host and connect by itself
            connection.request(method, url.target, headers=headers)
            with contextlib.closing(connection.getresponse()) as answer:
                yield answer
            # A connection that was shut down looks like one that the server has closed in its own time.
            if time.monotonic() >= deadline:
                raise TimeoutError

    @contextlib.contextmanager
    def _connected(self, url: WebUrl, deadline: float) -> Iterator[socket.socket]:
        with contextlib.ExitStack() as stack:
            raw = stack.enter_context(self._connect(url, deadline))
            stack.enter_context(_shut_down_at(deadline, raw))
            if url.scheme == "https":
                yield stack.enter_context(self.tls_context().wrap_socket(raw, server_hostname=url.host))
            else:
                yield raw

    def _connect(self, url: WebUrl, deadline: float) -> socket.socket:
        failure: OSError = socket.gaierror(socket.EAI_NONAME, "the name has no address")
        for address in self._checked_addresses(url):
            timeout_s = max(0.001, min(self.idle_timeout_s, deadline - time.monotonic()))
            try:
                connected = socket.create_connection((address, url.port), timeout=timeout_s)
            except OSError as error:
                failure = error
            else:
                connected.settimeout(self.idle_timeout_s)
                return connected
        raise failure

    def _checked_addresses(self, url: WebUrl) -> Sequence[str]:
        """Of the host; one that is not public spoils them all, as the next answer may hold that one alone."""
        addresses = self.resolve(url.host, url.port)
        for address in addresses:
            if not self.is_allowed(address):
                raise StorageError(
                    ErrorKind.FORBIDDEN,
                    f"{shown_uri(url.text)}: {url.host} is {address}, which is no public address; reach images on "
                    "your own network as files or through s3://",
                )
        return addresses


def _redirect_target(answer: http.client.HTTPResponse, url: WebUrl) -> WebUrl | None:
    """Where the answer sends us, None if nowhere."""
    location = answer.getheader("Location")
    if answer.status not in (301, 302, 303, 307, 308) or location is None:
        return None
    text = urljoin(url.text, location)
    scheme = urlsplit(text).scheme
    if scheme not in DEFAULT_PORTS or (url.scheme == "https" and scheme == "http"):
        raise StorageError(
            ErrorKind.UNSUPPORTED_URI,
            f"{shown_uri(url.text)}: redirects from {url.scheme} to {scheme or 'nothing'}, which is not followed",
        )
    return parse_url(text)


def _check_answer(answer: http.client.HTTPResponse, url: WebUrl) -> None:
    status, shown = answer.status, shown_uri(url.text)
    if status in (404, 410):
        raise StorageError(ErrorKind.MISSING, f"{shown}: there is no such file (HTTP {status})")
    if status in _BUSY or status >= 500:
        raise StorageError(
            ErrorKind.STORE_UNAVAILABLE, f"{shown}: the server is busy or failing (HTTP {status}); rerun later"
        )
    if status >= 400:
        raise StorageError(ErrorKind.FORBIDDEN, f"{shown}: the server refuses it (HTTP {status})")
    if status != 200:
        raise StorageError(ErrorKind.UNSUPPORTED_URI, f"{shown}: answers with HTTP {status} instead of a file")
    encoding = answer.getheader("Content-Encoding", "identity").strip().lower()
    if encoding not in ("", "identity"):
        raise StorageError(
            ErrorKind.UNSUPPORTED_URI, f"{shown}: comes compressed ({encoding[:20]!r}) although nobody asked for that"
        )


def _info(uri: str, answer: http.client.HTTPResponse) -> ObjectInfo:
    version = answer.getheader("ETag") or answer.getheader("Last-Modified") or ""
    return ObjectInfo(uri=uri, num_bytes=_declared_bytes(answer) or 0, version=version.strip('"'))


def _declared_bytes(answer: http.client.HTTPResponse) -> int | None:
    declared = answer.getheader("Content-Length", "").strip()
    return int(declared) if re.fullmatch("[0-9]{1,18}", declared) and not answer.chunked else None


def _body(uri: str, answer: http.client.HTTPResponse, max_bytes: int | None) -> bytes:
    body = bytearray()
    declared = _declared_bytes(answer)
    while declared is None or len(body) < declared:
        # `read1` gives what one arrival brought; `read` would wait for all of it, however slowly it drips.
        chunk = answer.read1(_READ_BYTES if declared is None else min(_READ_BYTES, declared - len(body)))
        if not chunk:
            break
        body += chunk
        check_readable(ObjectInfo(uri=uri, num_bytes=len(body), version=""), max_bytes=max_bytes, version="")
    if declared is not None and len(body) < declared:
        raise http.client.IncompleteRead(b"", declared - len(body))
    return bytes(body)


@contextlib.contextmanager
def _shut_down_at(deadline: float, connected: socket.socket) -> Iterator[None]:
    """Ends the connection at the deadline, whoever waits on it: a server that sends a byte now and then outlasts every
    limit on its silence, in its headers and its handshake too.
    """
    handle = connected.dup()  # TLS takes the socket over, but both are one connection
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), _shut_down, [handle])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        timer.join()
        handle.close()


def _shut_down(connected: socket.socket) -> None:
    with contextlib.suppress(OSError):  # closed already
        connected.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def _http_errors(url: WebUrl, deadline: float) -> Iterator[None]:
    shown = shown_uri(url.text)
    try:
        yield
    except StorageError:
        raise
    except ssl.SSLCertVerificationError as error:
        detail = f"the certificate is not one of {url.host} ({error.verify_message})"
        raise StorageError(ErrorKind.FORBIDDEN, f"{shown}: {detail}") from error
    except socket.gaierror as error:
        unknown = error.errno in (socket.EAI_NONAME, getattr(socket, "EAI_NODATA", None))
        kind = ErrorKind.MISSING if unknown else ErrorKind.STORE_UNAVAILABLE
        raise StorageError(kind, f"{shown}: no address for {url.host} ({error.strerror})") from error
    except (OSError, http.client.HTTPException) as error:
        late = time.monotonic() >= deadline or isinstance(error, TimeoutError)
        detail = "took too long" if late else f"{type(error).__name__}: {str(error)[:200]}"
        raise StorageError(ErrorKind.STORE_UNAVAILABLE, f"{shown}: no complete answer ({detail})") from error
    except ValueError as error:  # http.client, on what cannot stand in a request
        raise StorageError(ErrorKind.UNSUPPORTED_URI, f"{shown!r}: is not a possible URL") from error
