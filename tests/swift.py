"""A real object store for tests: Swift with its S3 API, which has no conditional puts and refuses chunked uploads."""

import contextlib
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import boto3
import pytest
from botocore.config import Config

from tests.command import SHARED

START_SCRIPT = SHARED / "s3" / "start-swift"
NUM_PORTS = 10
"""The script uses the given port and some of those that follow it."""


def reason_to_skip() -> str | None:
    if not START_SCRIPT.exists():
        return "no ../shared/s3/start-swift beside the repository"
    missing = [name for name in ("swift-proxy-server", "memcached", "curl") if shutil.which(name) is None]
    return f"Debian packages of Swift are not installed ({', '.join(missing)})" if missing else None


@contextlib.contextmanager
def swift_store(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Starts the store, points the AWS environment of this test at it, gives a bucket as `s3://name`, and ends it."""
    port = _free_ports()
    subprocess.run([START_SCRIPT, folder, str(port)], check=True, timeout=120, stdout=subprocess.DEVNULL)
    try:
        for name in [name for name in os.environ if name.startswith("AWS_")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test:tester")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
        monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{port}")
        # A session of its own: boto3's default one remembers the credentials of whichever test came first.
        # Swift's own parts wait for one another only so long: on a machine that is busy its first answers are 503.
        retries = {"mode": "standard", "total_max_attempts": 10}
        config = Config(s3={"addressing_style": "path"}, retries=retries)
        client = boto3.session.Session().client("s3", config=config)
        client.create_bucket(Bucket="labelmill")
        yield "s3://labelmill"
    finally:
        subprocess.run([START_SCRIPT, folder, "stop"], check=False, timeout=60, stdout=subprocess.DEVNULL)


def _free_ports() -> int:
    """The first of some ports in a row at which nothing listens."""
    for _ in range(100):
        with contextlib.ExitStack() as stack, contextlib.suppress(OSError):
            first = stack.enter_context(socket.socket())
            first.bind(("127.0.0.1", 0))
            port = int(first.getsockname()[1])
            for offset in range(1, NUM_PORTS):
                stack.enter_context(socket.socket()).bind(("127.0.0.1", port + offset))
            return port
    raise RuntimeError("no free ports in a row")
