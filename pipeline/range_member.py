"""The place of an image within a file that holds many, as bytes -> these bytes, by one request for them alone.

It knows places and sizes; not what the file is, nor who found the place.
"""

import re

from pipeline.patience import Patience
from pipeline.storage import ObjectInfo, StorageError, open_store
from schemas.errors import ErrorKind

_MEMBER = re.compile(r"tar:(\d+):(\d+)")


def range_member(offset: int, num_bytes: int) -> str:
    """The `member` of an image that lies at these bytes of an uncompressed tar file."""
    return f"tar:{offset}:{num_bytes}"


def parse_range_member(member: str) -> tuple[int, int] | None:
    """Offset and number of bytes of a `range_member`; None for any other."""
    found = _MEMBER.fullmatch(member)
    return (int(found.group(1)), int(found.group(2))) if found else None


def read_range(
    file_uri: str, offset: int, num_bytes: int, *, version: str, max_bytes: int, patience: Patience
) -> bytes:
    """
    Raises:
        StorageError: TOO_MANY_BYTES before anything is read; else as `Store.get_range`.
    """
    if num_bytes > max_bytes:
        raise StorageError(
            ErrorKind.TOO_MANY_BYTES,
            f"{file_uri}, byte {offset}: {num_bytes} bytes, more than limits.max_bytes = {max_bytes}",
        )
    if num_bytes == 0:
        return b""
    info = ObjectInfo(uri=file_uri, num_bytes=0, version=version)
    return open_store(file_uri, patience=patience).get_range(info, offset, num_bytes)
