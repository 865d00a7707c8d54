"""A checkpoint in a store of the tests' own, and processes that fetch it."""

import contextlib
import io
import os
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import boto3
from boto3.s3.transfer import TransferConfig

from tests.command import REPOSITORY
from tests.faulty_s3 import FaultyS3

RANGE_BYTES = 10_000
CONTENT = {
    "config.json": b"{}",
    "empty.safetensors": b"",
    "one.safetensors": random.Random(1).randbytes(203_000),
    "two.safetensors": random.Random(2).randbytes(100_000),
}
NUM_RANGES = 1 + 21 + 10
STUCK_AFTER_S = 60
"""How long a child that should be stuck by now is waited for, on the busiest of machines."""


def put(uri: str, content: Mapping[str, bytes] = CONTENT) -> str:
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    client = boto3.session.Session().client("s3")
    for name, body in content.items():
        client.put_object(Bucket=bucket, Key=f"{prefix}/{name}", Body=body)
    return uri


def put_in_parts(uri: str, name: str, body: bytes | None = None) -> bytes:
    """The smallest parts that a store takes; two, if no body is given."""
    body = random.Random(3).randbytes(5 * 1024 * 1024 + 1000) if body is None else body
    bucket, _, prefix = uri.removeprefix("s3://").partition("/")
    config = TransferConfig(multipart_threshold=len(body), multipart_chunksize=5 * 1024 * 1024)
    boto3.session.Session().client("s3").upload_fileobj(io.BytesIO(body), bucket, f"{prefix}/{name}", Config=config)
    return body


def everything(name: str) -> bool:
    return True


def names_in(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def content_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def ranges_asked(proxy: FaultyS3) -> Counter[tuple[str, str]]:
    return Counter((path.rpartition("/")[2], asked) for method, path, asked in proxy.requests if asked)


def ranges_listed(cache: Path) -> set[tuple[str, str]]:
    """As the Range headers that ask for them."""
    lines = [(path.name, line.split()) for path in cache.glob("*/sha256/*") for line in path.read_text().splitlines()]
    return {(name, f"bytes={start}-{int(start) + int(length) - 1}") for name, (_, start, length) in lines}


@contextlib.contextmanager
def child(uri: str) -> Iterator["subprocess.Popen[str]"]:
    """A process that fetches the checkpoint, prints its folder, and uses it until its standard input closes."""
    code = f"""if True:
        import sys
        from model import ranged_download
        from model.checkpoint_cache import cached_folder
        ranged_download.RANGE_BYTES = {RANGE_BYTES}
        print(cached_folder({uri!r}, lambda name: True), flush=True)
        sys.stdin.read()
    """
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY)}
    command = [sys.executable, "-c", code]
    with subprocess.Popen(
        command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def fetch_in_child(uri: str) -> Path:
    with child(uri) as process:
        output, errors = process.communicate("")
    assert process.returncode == 0, errors
    return Path(output.strip())


def wait_until(condition: Callable[[], bool]) -> None:
    deadline_s = time.monotonic() + STUCK_AFTER_S
    while not condition():
        assert time.monotonic() < deadline_s, "it did not come to that"
        time.sleep(0.02)
