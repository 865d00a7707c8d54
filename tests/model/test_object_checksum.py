"""What a store says of an object becomes a checksum, or nothing where it cannot be trusted to be one."""

import base64
import hashlib
import zlib
from pathlib import Path

import pytest

from model.object_checksum import checksum_of

CONTENT = bytes(range(256)) * 40
MD5 = hashlib.md5(CONTENT).hexdigest()


@pytest.fixture
def file(tmp_path: Path) -> Path:
    (tmp_path / "object").write_bytes(CONTENT)
    return tmp_path / "object"


def in_base64(digest: bytes) -> str:
    return base64.b64encode(digest).decode()


def etag_of_parts(part_bytes: int) -> str:
    parts = [CONTENT[at : at + part_bytes] for at in range(0, len(CONTENT), part_bytes)]
    return f"{hashlib.md5(b''.join(hashlib.md5(part).digest() for part in parts)).hexdigest()}-{len(parts)}"


def flip_a_bit(file: Path) -> None:
    file.write_bytes(CONTENT[:5000] + bytes([CONTENT[5000] ^ 1]) + CONTENT[5001:])


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ChecksumSHA256", in_base64(hashlib.sha256(CONTENT).digest())),
        ("ChecksumSHA1", in_base64(hashlib.sha1(CONTENT).digest())),
        ("ChecksumCRC32", in_base64(zlib.crc32(CONTENT).to_bytes(4, "big"))),
    ],
)
def test_checksum_that_came_with_the_object_is_a_promise(file: Path, name: str, value: str):
    checksum = checksum_of({name: value, "ChecksumType": "FULL_OBJECT"}, "not-an-md5", num_bytes=len(CONTENT))
    assert checksum is not None
    assert checksum.is_promise
    assert checksum.matches(file)
    flip_a_bit(file)
    assert not checksum.matches(file)


def test_etag_of_an_object_in_one_piece_is_its_md5_by_custom(file: Path):
    checksum = checksum_of({}, MD5, num_bytes=len(CONTENT))
    assert checksum is not None
    assert not checksum.is_promise
    assert checksum.matches(file)
    flip_a_bit(file)
    assert not checksum.matches(file)


@pytest.mark.parametrize("part_bytes", [1000, 2048, 5120, len(CONTENT) - 1])
def test_etag_of_an_object_in_parts_is_the_md5_of_their_md5s(file: Path, part_bytes: int):
    checksum = checksum_of({}, etag_of_parts(part_bytes), num_bytes=len(CONTENT), part_bytes=part_bytes)
    assert checksum is not None
    assert checksum.matches(file)
    flip_a_bit(file)
    assert not checksum.matches(file)


@pytest.mark.parametrize(
    ("head", "etag", "part_bytes"),
    [
        ({"ServerSideEncryption": "aws:kms"}, MD5, None),
        ({"SSECustomerAlgorithm": "AES256"}, MD5, None),
        ({}, "0x8DC0FFEE", None),
        ({}, f"{MD5}-3", None),
        ({}, f"{MD5}-3", 1000),
        ({}, f"{MD5}-1", len(CONTENT)),
        ({"ChecksumSHA256": "AAAA-3", "ChecksumType": "COMPOSITE"}, f"{MD5}-3", None),
        ({"ChecksumCRC64NVME": "AAAAAAAAAAA=", "ChecksumType": "FULL_OBJECT"}, f"{MD5}-3", None),
    ],
    ids=[
        "encrypted by the store",
        "encrypted by the client's key",
        "no MD5",
        "parts of unknown size",
        "parts of several sizes",
        "a store that calls every object one part",
        "a checksum of checksums",
        "a checksum that Python does not have",
    ],
)
def test_what_need_not_be_a_checksum_of_the_bytes_is_not_taken_for_one(
    head: dict[str, str], etag: str, part_bytes: int | None
):
    assert checksum_of(head, etag, num_bytes=len(CONTENT), part_bytes=part_bytes) is None


def test_encryption_that_leaves_the_etag_an_md5_is_no_hindrance():
    assert checksum_of({"ServerSideEncryption": "AES256"}, MD5, num_bytes=len(CONTENT)) is not None
