"""What a store says of an object -> whether a file holds its bytes.

A store may keep a checksum that it was given with the object, which is a promise; and most give an MD5 as ETag, which
nobody promises: encrypted objects and some stores have something else there. Knows no client and no network.
"""

import base64
import hashlib
import math
import re
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

_MD5 = re.compile(r"[0-9a-f]{32}(-[0-9]+)?")
_CHUNK_BYTES = 1 << 20


@dataclass(frozen=True, kw_only=True)
class ObjectChecksum:
    algorithm: str
    """crc32, sha1, sha256 or md5."""
    value: str
    """Hex; for an object of several parts `md5 of the parts' md5s`-`number of parts`."""
    part_bytes: int | None = None
    """Of an object that was uploaded in parts: the size of all but the last."""
    is_promise: bool = True
    """False where the store may have meant something else, so that another value is no proof of damage."""

    def matches(self, file: Path) -> bool:
        if self.part_bytes is None:
            return _hex_digest(file, self.algorithm) == self.value
        return _md5_of_parts(file, self.part_bytes) == self.value


def checksum_of(
    head: Mapping[str, Any], etag: str, *, num_bytes: int, part_bytes: int | None = None
) -> ObjectChecksum | None:
    """From the answer to a HEAD request with ChecksumMode=ENABLED; None where nothing of it can be computed here.

    Args:
        etag: without quotes.
        part_bytes: the size of the object's first part, where it is known.
    """
    has_parts = "-" in etag
    if head.get("ChecksumType", "COMPOSITE" if has_parts else "FULL_OBJECT") == "FULL_OBJECT":
        for algorithm in ("sha256", "sha1", "crc32"):
            if (value := head.get(f"Checksum{algorithm.upper()}")) is not None:
                return ObjectChecksum(algorithm=algorithm, value=base64.b64decode(value).hex())
    is_encrypted = "SSECustomerAlgorithm" in head or head.get("ServerSideEncryption", "AES256") != "AES256"
    if not _MD5.fullmatch(etag) or is_encrypted:
        return None
    if not has_parts:
        return ObjectChecksum(algorithm="md5", value=etag, is_promise=False)
    num_parts = int(etag.partition("-")[2])
    if not part_bytes or num_parts < 2 or math.ceil(num_bytes / part_bytes) != num_parts:
        return None  # parts of several sizes, or an ETag of the store's own making
    return ObjectChecksum(algorithm="md5", value=etag, part_bytes=part_bytes, is_promise=False)


def sha256_of(file: Path) -> str:
    return _hex_digest(file, "sha256")


def _hex_digest(file: Path, algorithm: str) -> str:
    if algorithm == "crc32":
        crc = 0
        for chunk in _chunks(file):
            crc = zlib.crc32(chunk, crc)
        return f"{crc:08x}"
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def _md5_of_parts(file: Path, part_bytes: int) -> str:
    digests, current, left = [], hashlib.md5(usedforsecurity=False), part_bytes
    for chunk in _chunks(file):
        view = memoryview(chunk)
        while len(view) >= left:
            current.update(view[:left])
            digests.append(current.digest())
            view, current, left = view[left:], hashlib.md5(usedforsecurity=False), part_bytes
        current.update(view)
        left -= len(view)
    if left < part_bytes:
        digests.append(current.digest())
    return f"{hashlib.md5(b''.join(digests), usedforsecurity=False).hexdigest()}-{len(digests)}"


def _chunks(file: Path) -> Iterator[bytes]:
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK_BYTES):
            yield chunk
