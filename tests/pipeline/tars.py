"""Tar files for tests: of members that Python's `tarfile` writes, and of headers that it would not."""

import io
import tarfile
from collections.abc import Iterable

BLOCK = 512


def tar(members: Iterable[tuple[str, bytes]], *, format: int = tarfile.USTAR_FORMAT) -> bytes:
    """A tar file of these members; a name that ends in a slash is a folder."""
    sink = io.BytesIO()
    with tarfile.open(fileobj=sink, mode="w", format=format) as archive:
        for name, data in members:
            info = tarfile.TarInfo(name.rstrip("/"))
            info.type, info.size = (tarfile.DIRTYPE, 0) if name.endswith("/") else (tarfile.REGTYPE, len(data))
            archive.addfile(info, io.BytesIO(data))
    return sink.getvalue()


def header(
    name: str, num_bytes: int, *, type_: bytes = b"0", raw_size: bytes | None = None, byte_482: int = 0
) -> bytes:
    """One block with a right checksum, whatever else it says."""
    block = bytearray(BLOCK)
    block[: len(name)] = name.encode()
    block[124:136] = raw_size if raw_size is not None else f"{num_bytes:011o}\0".encode()
    block[156:157], block[257:265] = type_, b"ustar\x0000"
    block[482] = byte_482
    block[148:156] = b" " * 8
    block[148:156] = f"{sum(block):06o}\0 ".encode()
    return bytes(block)


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


END = bytes(2 * BLOCK)
