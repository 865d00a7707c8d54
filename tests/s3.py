"""A real S3 API for tests: a moto server as a child process on a free port of the loopback interface."""

import contextlib
import hashlib
import http.server
import os
import socket
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator

import boto3
import pytest

START_TIMEOUT_S = 60


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """Starts the server, gives its endpoint URL, and ends that one process."""
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        _wait_until_listening(process, port)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(timeout=30)


def use_store(monkeypatch: pytest.MonkeyPatch, endpoint_url: str) -> None:
    """Points the AWS environment of this test, and of the processes it starts, at the endpoint and nowhere else."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_ENDPOINT_URL", endpoint_url)
    # A developer's own profile must not leak into a test.
    monkeypatch.setenv("AWS_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


def make_bucket(endpoint_url: str) -> str:
    """A new empty bucket, as `s3://name`; call it after `use_store`."""
    name = f"bucket-{uuid.uuid4().hex[:12]}"
    boto3.session.Session().client("s3", endpoint_url=endpoint_url).create_bucket(Bucket=name)
    return f"s3://{name}"


def unused_endpoint() -> str:
    """An endpoint URL at which nothing listens."""
    return f"http://127.0.0.1:{_free_port()}"


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait_until_listening(process: "subprocess.Popen[bytes]", port: int) -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the moto server ended with exit status {process.returncode}"
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"the moto server did not listen on port {port} within {START_TIMEOUT_S} s")


class ModestStore(http.server.ThreadingHTTPServer):
    """The least of an S3 API, in memory, with what moto cannot do: it knows no conditional puts, and it may lose the
    answer to a request after doing it, or be busy for a while.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ModestHandler)
        self.objects: dict[str, bytes] = {}
        self.knows_conditional_puts = False
        self.num_answers_to_lose = 0
        self.num_busy_answers = 0

    @property
    def endpoint_url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"


@contextlib.contextmanager
def modest_store() -> Iterator[ModestStore]:
    with ModestStore() as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


class _ModestHandler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: ModestStore

    def do_PUT(self) -> None:
        data = self.rfile.read(int(self.headers["Content-Length"]))
        conditional = self.headers["If-None-Match"] is not None
        if conditional and not self.server.knows_conditional_puts:
            return self._answer(501, code="NotImplemented")
        if conditional and self.path in self.server.objects:
            return self._answer(412, code="PreconditionFailed")
        self.server.objects[self.path] = data
        if self.server.num_answers_to_lose:
            self.server.num_answers_to_lose -= 1
            self.close_connection = True
            return None
        return self._answer(200)

    def do_GET(self) -> None:
        if self.server.num_busy_answers:
            self.server.num_busy_answers -= 1
            return self._answer(503, code="SlowDown")
        if self.path not in self.server.objects:
            return self._answer(404, code="NoSuchKey")
        return self._answer(200, self.server.objects[self.path])

    do_HEAD = do_GET

    def _answer(self, status: int, body: bytes = b"", code: str = "") -> None:
        if code:
            body = f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests need no log of requests."""
