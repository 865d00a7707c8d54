"""Local paths -> a `Store` over files and folders.

It knows no images and no tables; a network file system mounted somewhere is local to it.
"""

import contextlib
import errno
import os
import shutil
import stat
import uuid
from collections.abc import Iterator
from typing import BinaryIO

from pipeline.storage import ObjectInfo, StorageError, Store, check_readable, local_path, no_such_bytes
from schemas.errors import ErrorKind

_TEMPORARY_PREFIX = ".labelmill-put-"
_COPIED_BYTES = 1 << 20


class LocalStore(Store):
    """Files of this machine. `version` is `size-mtime_ns`."""

    def list(self, prefix_uri: str, *, starting_with: str = "") -> Iterator[ObjectInfo]:
        """Links are followed, to folders too unless they lead back above themselves. A dangling link is listed, with
        version "", so that it ends as a missing image rather than as nothing. Unfinished puts are not listed.
        """
        root = local_path(prefix_uri)
        start = root.rstrip("/") + "/" + starting_with
        with _local_errors(prefix_uri):
            for path in _walk(root, (os.path.realpath(root),)):
                if path.startswith(start):
                    yield _listed(path)

    def head(self, uri: str) -> ObjectInfo:
        with _local_errors(uri):
            return _info(uri, os.stat(local_path(uri)))

    def get(self, uri: str, *, max_bytes: int | None = None, version: str = "") -> bytes:
        with _local_errors(uri):
            with open(local_path(uri), "rb", opener=_open_without_waiting) as file:
                check_readable(_info(uri, os.fstat(file.fileno())), max_bytes=max_bytes, version=version)
                return file.read()

    def get_range(self, info: ObjectInfo, first: int, num_bytes: int) -> bytes:
        with _local_errors(info.uri):
            with open(local_path(info.uri), "rb", opener=_open_without_waiting) as file:
                now = _info(info.uri, os.fstat(file.fileno()))
                check_readable(now, max_bytes=None, version=info.version)
                if first + num_bytes > now.num_bytes:
                    raise no_such_bytes(info.uri, first, num_bytes)
                file.seek(first)
                return file.read(num_bytes)

    def open(self, uri: str) -> BinaryIO:
        self.head(uri)
        with _local_errors(uri):
            return open(local_path(uri), "rb", opener=_open_without_waiting)

    def put(self, uri: str, data: bytes) -> None:
        path = local_path(uri)
        with _local_errors(uri), _temporary(path, data) as temporary:
            os.replace(temporary, path)

    def put_file(self, uri: str, file: BinaryIO) -> None:
        path = local_path(uri)
        file.seek(0)
        with _local_errors(uri), _temporary(path, file) as temporary:
            os.replace(temporary, path)

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        path = local_path(uri)
        with _local_errors(uri), _temporary(path, data) as temporary:
            try:
                os.link(temporary, path)
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS, errno.EMLINK):
                    raise
                return _write_exclusively(path, data)  # a file system without hard links
            return True

    def has_conditional_puts(self, folder_uri: str) -> bool:
        """Always: a hard link, or a file that is opened exclusively, is created once."""
        return True

    def delete(self, uri: str) -> None:
        with _local_errors(uri), contextlib.suppress(FileNotFoundError):
            os.remove(local_path(uri))

    def exists(self, uri: str) -> bool:
        with _local_errors(uri):
            try:
                return stat.S_ISREG(os.stat(local_path(uri)).st_mode)
            except (FileNotFoundError, NotADirectoryError):
                return False


def _open_without_waiting(path: str, flags: int) -> int:
    # Opening a named pipe would otherwise wait for its writer for ever.
    return os.open(path, flags | os.O_NONBLOCK)


def _walk(folder: str, real_ancestors: tuple[str, ...]) -> Iterator[str]:
    with os.scandir(folder) as entries:
        # A folder sorts as its files' keys will: "a-b" comes before "a/x", so "a" must be compared as "a/".
        ordered = sorted((entry.name + "/" * entry.is_dir(), entry.path) for entry in entries)
    for name, path in ordered:
        if not name.endswith("/"):
            if not name.startswith(_TEMPORARY_PREFIX):
                yield path
            continue
        real = os.path.realpath(path)
        if real not in real_ancestors:
            yield from _walk(path, (*real_ancestors, real))


def _listed(path: str) -> ObjectInfo:
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return ObjectInfo(uri=path, num_bytes=0, version="")
    return ObjectInfo(uri=path, num_bytes=found.st_size, version=_version(found))


def _info(uri: str, found: os.stat_result) -> ObjectInfo:
    if stat.S_ISDIR(found.st_mode):
        raise IsADirectoryError(errno.EISDIR, "is a folder")
    if not stat.S_ISREG(found.st_mode):
        raise StorageError(ErrorKind.UNSUPPORTED_URI, f"{uri}: is neither a regular file nor a link to one")
    return ObjectInfo(uri=uri, num_bytes=found.st_size, version=_version(found))


def _version(found: os.stat_result) -> str:
    return f"{found.st_size}-{found.st_mtime_ns}"


@contextlib.contextmanager
def _temporary(path: str, data: bytes | BinaryIO) -> Iterator[str]:
    """A synced file with the data next to `path`, gone when the block ends however it ends."""
    folder = os.path.dirname(path)
    os.makedirs(folder, exist_ok=True)
    temporary = os.path.join(folder, f"{_TEMPORARY_PREFIX}{uuid.uuid4().hex}")
    try:
        _write_exclusively(temporary, data)
        yield temporary
    finally:
        with contextlib.suppress(FileNotFoundError):
            os.remove(temporary)


def _write_exclusively(path: str, data: bytes | BinaryIO) -> bool:
    try:
        file = open(path, "xb")  # noqa: SIM115 - only a failure to create means "it is there already"
    except FileExistsError:
        return False
    with file:
        if isinstance(data, bytes):
            file.write(data)
        else:
            shutil.copyfileobj(data, file, _COPIED_BYTES)
        file.flush()
        os.fsync(file.fileno())
    return True


@contextlib.contextmanager
def _local_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except OSError as error:
        raise _storage_error(error, uri) from error
    except ValueError as error:  # a NUL or a lone surrogate in the path
        raise StorageError(ErrorKind.UNSUPPORTED_URI, f"{uri!r}: is not a possible path ({error})") from error


def _storage_error(error: OSError, uri: str) -> StorageError:
    # A walk fails somewhere below the folder that it was asked for.
    where = f"{uri} ({error.filename})" if error.filename and error.filename != local_path(uri) else uri
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return StorageError(ErrorKind.STORE_UNAVAILABLE, f"{uri}: the disk is full; free some space and rerun")
    for errnos, kind, advice in _ADVICE:
        if error.errno in errnos:
            return StorageError(kind, f"{where}: {advice}")
    return StorageError(ErrorKind.STORE_UNAVAILABLE, f"{where}: {error.strerror or error}")


_ADVICE = (
    ({errno.ENOENT}, ErrorKind.MISSING, "no such file or folder; check the path"),
    ({errno.ENOTDIR, errno.EEXIST}, ErrorKind.MISSING, "a part of the path is a file where a folder is needed"),
    ({errno.EISDIR}, ErrorKind.UNSUPPORTED_URI, "is a folder where a file is needed"),
    ({errno.ENAMETOOLONG, errno.EINVAL}, ErrorKind.UNSUPPORTED_URI, "is not a possible path"),
    ({errno.ELOOP}, ErrorKind.MISSING, "is a link that leads to itself"),
    ({errno.EACCES, errno.EPERM}, ErrorKind.FORBIDDEN, "permission denied; check who may read and write there"),
    ({errno.EROFS}, ErrorKind.FORBIDDEN, "the file system is read-only"),
)
