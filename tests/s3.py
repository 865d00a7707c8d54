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

from pipeline.patience import PATIENCE_VARIABLE

START_TIMEOUT_S = 60
KEYS_PER_PAGE = 100
"""Of a listing; S3 itself gives 1,000, which would take a test of several pages longer to write."""


@contextlib.contextmanager
def moto_server() -> Iterator[str]:
    """Starts the server, gives its endpoint URL, and ends that one process."""
    port = _free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    environment = {**os.environ, "MOTO_S3_DEFAULT_MAX_KEYS": str(KEYS_PER_PAGE)}
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment)
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


def use_proxy(monkeypatch: pytest.MonkeyPatch, url: str, *, patience_s: float) -> None:
    """Goes on with the same store through a proxy; waits are as much shorter than usual as the patience is."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", url)
    monkeypatch.setenv(PATIENCE_VARIABLE, str(patience_s))


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
    """The least of an S3 API, in memory, with what moto cannot do: it refuses conditional puts, or does not look at the
    condition, may be busy for a while, and may refuse everything, quoting the credentials that it was shown.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ModestHandler)
        self.objects: dict[str, bytes] = {}
        self.ignores_conditions = False
        self.num_busy_answers = 0
        self.refusal: tuple[int, str] | None = None
        """Status and code of the answer to everything."""

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
        if self.server.refusal:
            return self._refuse(*self.server.refusal)
        if self.headers["If-None-Match"] is not None and not self.server.ignores_conditions:
            return self._answer(501, code="NotImplemented")
        self.server.objects[self.path] = data
        return self._answer(200)

    def do_DELETE(self) -> None:
        if self.server.refusal:
            return self._refuse(*self.server.refusal)
        self.server.objects.pop(self.path, None)
        return self._answer(204)

    def do_GET(self) -> None:
        if self.server.refusal:
            return self._refuse(*self.server.refusal)
        if self.server.num_busy_answers:
            self.server.num_busy_answers -= 1
            return self._answer(503, code="SlowDown")
        if self.path not in self.server.objects:
            return self._answer(404, code="NoSuchKey")
        return self._answer(200, self.server.objects[self.path])

    do_HEAD = do_GET

    def _refuse(self, status: int, code: str) -> None:
        shown = f"{self.headers['Authorization']}, token {self.headers['X-Amz-Security-Token']}"
        self._answer(status, code=code, message=f"as told to http://{self.headers['Host']}{self.path}: {shown}")

    def _answer(self, status: int, body: bytes = b"", code: str = "", message: str = "as told") -> None:
        if code:
            body = f"<Error><Code>{code}</Code><Message>{message}</Message></Error>".encode()
        self.send_response(status)
        self.send_header("ETag", f'"{hashlib.md5(body).hexdigest()}"')
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Tests need no log of requests."""
