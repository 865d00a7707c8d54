"""A store behind bad weather: a proxy on loopback that forwards S3 requests and, on a seeded schedule, does not.

    with faulty_s3(backend_url, seed=1, rate=0.05) as proxy:
        os.environ["AWS_ENDPOINT_URL"] = proxy.url
        ...
    assert proxy.injected

The Host header that the client has signed reaches the backend unchanged, so signatures hold.
"""

import contextlib
import http.client
import http.server
import random
import socket
import struct
import sys
import threading
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from urllib.parse import urlsplit


class Fault(StrEnum):
    """What may become of one request."""

    INTERNAL_ERROR = "500 before the backend has heard of it"
    SLOW_DOWN = "503 before the backend has heard of it"
    GARBAGE = "500 whose body is no XML"
    DROPPED = "connection closed without an answer, before the backend has heard of it"
    RESET_BEFORE = "connection reset before the backend has heard of it"
    RESET_AFTER = "connection reset after the backend has done it: the answer is lost"
    TRUNCATED = "half an answer, then the connection is closed"
    RESET_MIDWAY = "half an answer, then the connection is reset"
    STALL = "half an answer, then nothing for `stall_s`, then the connection is closed"
    TRICKLE = "the whole answer, in many pieces spread over `stall_s`"
    DELAY = "the whole answer, `delay_s` late"


BEFORE_BACKEND = {Fault.INTERNAL_ERROR, Fault.SLOW_DOWN, Fault.GARBAGE, Fault.DROPPED, Fault.RESET_BEFORE}
_HOP_BY_HOP = {
    "connection",
    "keep-alive",
    "transfer-encoding",
    "expect",
    "proxy-connection",
    "te",
    "trailer",
    "upgrade",
}
_BACKEND_TIMEOUT_S = 60
_NUM_TRICKLES = 50


@dataclass(frozen=True, kw_only=True)
class _Answer:
    status: int
    reason: str
    headers: Sequence[tuple[str, str]]
    body: bytes


class FaultyS3(http.server.ThreadingHTTPServer):
    """The proxy. `rate`, `faults`, `delay_s` and `stall_s` may be changed while it runs."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(
        self,
        backend_url: str,
        *,
        seed: int,
        rate: float,
        faults: Sequence[Fault],
        delay_s: float,
        stall_s: float,
    ) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.backend = urlsplit(backend_url).netloc
        self.rate, self.faults = rate, tuple(faults)
        self.delay_s, self.stall_s = delay_s, stall_s
        self.injected: Counter[Fault] = Counter()
        """How often each fault has happened."""
        self.num_requests = 0
        """Requests that arrived, refused ones included."""
        self.requests: list[tuple[str, str, str]] = []
        """Method, path and Range header of each, in the order in which they arrived."""
        self.num_refused = 0
        """Requests that came while the store was down."""
        self._closing = threading.Event()
        self._errors: list[BaseException] = []
        self._down = False
        self._slow_s = 0.0
        self._random = random.Random(seed)
        self._next: deque[Fault | None] = deque()
        self._broken: dict[str, Fault] = {}
        self._lock = threading.Lock()
        self._connections: set[socket.socket] = set()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def go_down(self) -> None:
        """The connection of every request is reset, until `come_back`."""
        self._down = True

    def be_slow(self, delay_s: float) -> None:
        """Every request waits so long, on top of its faults, until `come_back`."""
        self._slow_s = delay_s

    def come_back(self) -> None:
        self._down, self._slow_s = False, 0.0

    def come_back_after(self, num_refused: int) -> None:
        """Waits until so many requests were refused, so that somebody has noticed, however slow the machine is."""
        while self.num_refused < num_refused and not self._closing.is_set():
            self.pause(0.01)
        self.come_back()

    def inject(self, *faults: Fault | None) -> None:
        """What happens to the next requests, in their order; None lets one pass."""
        self._next.extend(faults)

    def break_path(self, path: str, fault: Fault = Fault.INTERNAL_ERROR) -> None:
        """What happens to every request for this path (`/bucket/key`, as on the wire), until `mend_path`."""
        self._broken[path] = fault

    def mend_path(self, path: str) -> None:
        del self._broken[path]

    def draw(self, path: str) -> Fault | None:
        """Decides about a request that has arrived. Draws nothing for one that is told its fate, or while down."""
        with self._lock:
            self.num_requests += 1
            if self._down:
                self.num_refused += 1
                return Fault.RESET_BEFORE
            fault = self._broken.get(path.partition("?")[0]) or self._drawn()
            if fault is not None:
                self.injected[fault] += 1
            return fault

    def _drawn(self) -> Fault | None:
        if self._next:
            return self._next.popleft()
        return self._random.choice(self.faults) if self._random.random() < self.rate else None

    def pause(self, duration_s: float) -> None:
        """Sleeps, but not beyond the end of the proxy."""
        self._closing.wait(duration_s)

    @property
    def slow_s(self) -> float:
        return self._slow_s

    def get_request(self) -> tuple[socket.socket, tuple[str, int]]:
        connection, address = super().get_request()
        with self._lock:
            self._connections.add(connection)
        return connection, address

    def shutdown_request(self, request: socket.socket) -> None:  # type: ignore[override]
        with self._lock:
            self._connections.discard(request)
        if request.getsockopt(socket.SOL_SOCKET, socket.SO_LINGER):
            self.close_request(request)  # at once: a shutdown would say goodbye before the reset
        else:
            super().shutdown_request(request)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients go away as they like, and so may the backend; anything else is a fault of this file's."""
        error = sys.exception()
        if error is not None and not isinstance(error, OSError | http.client.HTTPException):
            self._errors.append(error)

    def close(self) -> None:
        """Ends waiting handlers and kept connections with the proxy."""
        self._closing.set()
        self.shutdown()
        self.server_close()
        with self._lock:
            connections = list(self._connections)
        for connection in connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        if self._errors:
            raise self._errors[0]


@contextlib.contextmanager
def faulty_s3(
    backend_url: str,
    *,
    seed: int = 0,
    rate: float = 0.0,
    faults: Sequence[Fault] = tuple(Fault),
    delay_s: float = 0.01,
    stall_s: float = 0.1,
) -> Iterator[FaultyS3]:
    """Starts the proxy on a free port; ends it, and every connection through it, with the block."""
    proxy = FaultyS3(backend_url, seed=seed, rate=rate, faults=faults, delay_s=delay_s, stall_s=stall_s)
    thread = threading.Thread(target=proxy.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        try:
            proxy.close()
        finally:
            thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    """One connection of a client. The base class answers `Expect: 100-continue` before it calls us."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    server: FaultyS3

    def _serve(self) -> None:
        body = self._read_body()
        self.server.requests.append((self.command, self.path, self.headers.get("Range", "")))
        fault = self.server.draw(self.path)
        self.server.pause(self.server.slow_s)
        if fault in BEFORE_BACKEND:
            self._fail(fault)
            return
        answer = self._forward(body)
        if fault is Fault.DELAY:
            self.server.pause(self.server.delay_s)
        if fault is None or fault is Fault.DELAY:
            self._send(self._encoded(answer))
        elif fault is Fault.TRICKLE:
            self._trickle(self._encoded(answer))
        else:
            self._break_off(self._encoded(answer), len(answer.body), fault)

    do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve

    def _read_body(self) -> bytes:
        """As it came: the frames of a chunked body are passed on with it."""
        if "chunked" not in self.headers.get("Transfer-Encoding", "").lower():
            return self.rfile.read(int(self.headers.get("Content-Length", 0)))
        lines = []
        while True:
            lines.append(size_line := self.rfile.readline())
            num_bytes = int(size_line.partition(b";")[0], 16)
            if num_bytes == 0:
                break
            lines.append(self.rfile.read(num_bytes + len(b"\r\n")))
        while (line := self.rfile.readline()) not in (b"\r\n", b"\n", b""):  # trailers
            lines.append(line)
        return b"".join([*lines, b"\r\n"])

    def _forward(self, body: bytes) -> _Answer:
        backend = http.client.HTTPConnection(self.server.backend, timeout=_BACKEND_TIMEOUT_S)
        with contextlib.closing(backend):
            backend.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in _HOP_BY_HOP:
                    backend.putheader(name, value)
            if "Transfer-Encoding" in self.headers:
                backend.putheader("Transfer-Encoding", self.headers["Transfer-Encoding"])
            backend.putheader("Connection", "close")
            backend.endheaders(body or None)
            response = backend.getresponse()
            content = response.read()
            headers = [(name, value) for name, value in response.getheaders() if name.lower() not in _HOP_BY_HOP]
            return _Answer(status=response.status, reason=response.reason, headers=headers, body=content)

    def _encoded(self, answer: _Answer) -> bytes:
        lines = [f"HTTP/1.1 {answer.status} {answer.reason}"]
        lines += [f"{name}: {value}" for name, value in answer.headers]
        has_body = self.command != "HEAD" and answer.status not in (204, 304)
        if has_body and "content-length" not in {name.lower() for name, _ in answer.headers}:
            lines.append(f"Content-Length: {len(answer.body)}")
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + answer.body

    def _send(self, data: bytes) -> None:
        self.wfile.write(data)
        self.wfile.flush()

    def _fail(self, fault: Fault) -> None:
        if fault is Fault.DROPPED:
            self.close_connection = True
        elif fault is Fault.RESET_BEFORE:
            self._reset()
        else:
            code = "SlowDown" if fault is Fault.SLOW_DOWN else "InternalError"
            text = "<html>502 upstream<" if fault is Fault.GARBAGE else f"<Error><Code>{code}</Code></Error>"
            status = 503 if fault is Fault.SLOW_DOWN else 500
            headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(text)))]
            body = b"" if self.command == "HEAD" else text.encode()
            self._send(self._encoded(_Answer(status=status, reason="as told", headers=headers, body=body)))

    def _trickle(self, data: bytes) -> None:
        num_bytes = -(-len(data) // _NUM_TRICKLES)
        for start in range(0, len(data), num_bytes):
            self._send(data[start : start + num_bytes])
            self.server.pause(self.server.stall_s / _NUM_TRICKLES)

    def _break_off(self, data: bytes, num_body_bytes: int, fault: Fault) -> None:
        """Half of the body where there is one, else half of the headers."""
        self.close_connection = True
        if fault is not Fault.RESET_AFTER:
            num_head_bytes = len(data) - num_body_bytes
            self._send(data[: num_head_bytes + num_body_bytes // 2 if num_body_bytes > 1 else num_head_bytes // 2])
        if fault is Fault.STALL:
            self.server.pause(self.server.stall_s)
        elif fault is not Fault.TRUNCATED:
            self._reset()

    def _reset(self) -> None:
        """Closing with this option sends RST: what the peer has not read is lost to it."""
        self.close_connection = True
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    def log_message(self, format: str, *args: object) -> None:
        """The counts are the log."""
