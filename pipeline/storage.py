"""A URI -> the store that holds it: list, read, write and write-if-absent, on local files and on S3.

It knows names and bytes only: no images, no tables, no rows.
"""

import os
import posixpath
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO
from urllib.parse import unquote

from pipeline.redact import redacted
from schemas.errors import ErrorKind

if TYPE_CHECKING:
    from pipeline.patience import Patience

_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)://")
# A password may hold an unescaped "/"; a port is none.
_PASSWORD = re.compile(r"(?<=://)([^/?#]*@|(?!\[)[^/:@]*:(?!\d*([/?#]|$))[^@]*@)")
_WITHOUT_QUERY = ("", "file", "s3")


class StorageError(ValueError):
    """A store refused, or could not be reached. One line: the URI, what happened and what to do about it.

    `kind` says whether trying again can help (`kind.permanent`). Credentials in the message are masked.
    """

    def __init__(self, kind: ErrorKind, message: str) -> None:
        super().__init__(redacted(" ".join(message.split())))
        self.kind = kind

    def __reduce__(self) -> tuple[type["StorageError"], tuple[ErrorKind, str]]:
        return type(self), (self.kind, str(self))


@dataclass(frozen=True, kw_only=True)
class ObjectInfo:
    """One stored object. `version` changes whenever its bytes do; "" where the store could not say."""

    uri: str
    num_bytes: int
    version: str


class Store(ABC):
    """Objects under URIs of one scheme. Holds no client and no open file: it can be pickled at any time.

    Every method takes full URIs and raises `StorageError`, and nothing else, for whatever the store does.
    """

    @abstractmethod
    def list(self, prefix_uri: str, *, starting_with: str = "") -> Iterator[ObjectInfo]:
        """Every object below the folder `prefix_uri`, recursively, in the order of their keys' code points.

        Lazy: neither all objects nor all pages are held. `photos` never lists `photos-old/`. With
        `starting_with`, only objects whose name below the folder starts so. Folders (on S3: keys ending in
        `/`) are not objects.
        """

    @abstractmethod
    def head(self, uri: str) -> ObjectInfo:
        """Size and version of one object, without reading it."""

    @abstractmethod
    def get(self, uri: str, *, max_bytes: int | None = None, version: str = "") -> bytes:
        """The whole object.

        Raises:
            StorageError: TOO_MANY_BYTES if it is larger than `max_bytes`, CHANGED if it is not the given `version`
                any more; both are found out before the body is read.
        """

    @abstractmethod
    def get_range(self, info: ObjectInfo, first: int, num_bytes: int) -> bytes:
        """`num_bytes` bytes, at least one, of an object from its byte `first`; all of them must be there.

        Args:
            info: the object as it was listed. Its size is not looked at.

        Raises:
            StorageError: CHANGED once it is not the version of `info`, or has no such bytes.
        """

    @abstractmethod
    def open(self, uri: str) -> BinaryIO:
        """The object as a seekable binary file that reads what is asked for; close it."""

    @abstractmethod
    def put(self, uri: str, data: bytes) -> None:
        """Creates or replaces the object; a reader sees the old bytes or the new ones, never a part."""

    @abstractmethod
    def put_file(self, uri: str, file: BinaryIO) -> None:
        """As `put`, with the whole of an open file, wherever it stands; little of it is held."""

    @abstractmethod
    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """Creates the object and says True, or leaves the one that is there and says False.

        Two writers must bring different data: where an answer is lost, whose the object is shows in its content.
        """

    @abstractmethod
    def has_conditional_puts(self, folder_uri: str) -> bool:
        """Whether `put_if_absent` is atomic in this folder, so that of two writers at once one is told False.

        Where it has to be found out, it is tried with an object that is removed again.
        """

    @abstractmethod
    def delete(self, uri: str) -> None:
        """Removes the object; one that is not there is fine."""

    def list_or_empty(self, prefix_uri: str, *, starting_with: str = "") -> Iterator[ObjectInfo]:
        """As `list`, and nothing where there is no such folder: on S3 an empty folder and none are the same."""
        try:
            yield from self.list(prefix_uri, starting_with=starting_with)
        except StorageError as error:
            if error.kind != ErrorKind.MISSING:
                raise

    def exists(self, uri: str) -> bool:
        """Whether there is an object (not a folder) of exactly this name."""
        try:
            self.head(uri)
        except StorageError as error:
            if error.kind == ErrorKind.MISSING:
                return False
            raise
        return True

    def check_writable(self, folder_uri: str) -> None:
        """Writes and removes one small object in the folder; the error names the folder."""
        probe_uri = new_probe_uri(folder_uri)
        try:
            self.put(probe_uri, b"probe")
            self.delete(probe_uri)
        except StorageError as error:
            raise StorageError(error.kind, f"cannot write to {folder_uri}: {error}") from error


def open_store(uri: str, *, patience: "Patience | None" = None) -> Store:
    """The store of a local path (plain, with `~`, or `file://`) or an `s3://` URI. Connects to nothing yet.

    Args:
        patience: how long transient failures of S3 are waited out; by default as the environment says
            (`Patience.from_environment`). Local files are not waited for.

    Raises:
        StorageError: UNSUPPORTED_URI for any other scheme.
        ValueError: `LABELMILL_STORE_PATIENCE_S` is not a number of seconds.
    """
    scheme = uri_scheme(uri)
    # Imported here because both build on this module, and because local jobs need not wait for boto3.
    if scheme == "s3":
        from pipeline.s3 import S3Store

        return S3Store(patience=patience)
    if scheme in ("", "file"):
        from pipeline.local import LocalStore

        return LocalStore()
    raise StorageError(
        ErrorKind.UNSUPPORTED_URI,
        f"{shown_uri(uri)}: scheme {scheme!r} is not supported; use a local path, file:// or s3://",
    )


def new_probe_uri(folder_uri: str) -> str:
    """A name in the folder that nobody else has."""
    return join_uri(folder_uri, f".labelmill-probe-{uuid.uuid4().hex}")


def check_readable(info: ObjectInfo, *, max_bytes: int | None, version: str) -> None:
    """Raises the `StorageError` that `Store.get` promises for an object of this size and version."""
    if version and info.version != version:
        raise StorageError(
            ErrorKind.CHANGED,
            f"{shown_uri(info.uri)}: changed since it was listed (was {version}, is {info.version}); list it again",
        )
    if max_bytes is not None and info.num_bytes > max_bytes:
        raise StorageError(
            ErrorKind.TOO_MANY_BYTES,
            f"{shown_uri(info.uri)}: {info.num_bytes} bytes, more than limits.max_bytes = {max_bytes}",
        )


def no_such_bytes(uri: str, first: int, num_bytes: int) -> StorageError:
    """An object that is shorter than whoever listed its parts saw it."""
    return StorageError(
        ErrorKind.CHANGED, f"{shown_uri(uri)}: has no {num_bytes} bytes at its byte {first} any more; list it again"
    )


def uri_scheme(uri: str) -> str:
    """The scheme in lower case; "" for a plain path, which may hold a colon (`a:b.jpg`)."""
    match = _SCHEME.match(uri)
    return match.group(1).lower() if match else ""


def without_password(uri: str) -> str:
    """The URI without `user:password@`."""
    return _PASSWORD.sub("", uri) if uri_scheme(uri) else uri


def shown_uri(uri: str) -> str:
    """The URI as messages and logs may repeat it: without password and query, which is where signatures and tokens are.

    A local path and an S3 key have no query: all of them is the name.
    """
    shown = without_password(uri)
    if uri_scheme(uri) in _WITHOUT_QUERY:
        return shown
    name = re.split(r"[?#]", shown, maxsplit=1)[0]
    return name if name == shown else f"{name}?..."


def join_uri(base: str, *parts: str) -> str:
    """`base` and `parts` with one slash between each two; nothing else about them changes."""
    return "/".join([base.rstrip("/"), *(part.strip("/") for part in parts)])


def canonical_uri(uri: str) -> str:
    """The one spelling of a folder or file that a user named.

    Local: an absolute path without `.`, `..` and trailing slash. Symbolic links stay: two links to one file are two
    inputs. S3: `s3://bucket/key` without slashes at either end of the key. Other schemes are left alone.
    """
    scheme = uri_scheme(uri)
    if scheme in ("", "file"):
        return local_path(uri)
    if scheme == "s3":
        bucket, key = split_s3(uri)
        return f"s3://{bucket}/{key.strip('/')}".rstrip("/")
    return uri


def resolve_uri(text: str, base: str) -> str:
    """A URI found in data: as it is when absolute, else relative to the folder `base`, never above its bucket.

    Whether it may be followed is not decided here: see `pipeline.uri_policy`. Passwords of web servers are dropped.
    """
    scheme = uri_scheme(text)
    if scheme == "file":
        return local_path(text)
    if scheme in ("http", "https"):
        return without_password(text)
    if scheme:
        return text
    if text.startswith("/"):
        return posixpath.normpath(text)
    if {".", ".."} & set(text.split("/")):
        bucket, folder = split_s3(base) if uri_scheme(base) == "s3" else ("", base)
        path = posixpath.normpath("/" + f"{folder}/{text}".lstrip("/"))
        return f"s3://{bucket}{path}" if bucket else path
    return f"{base.rstrip('/')}/{text}"


def local_path(uri: str) -> str:
    """The absolute path of a plain path or `file://` URI."""
    if uri_scheme(uri) == "file":
        path = unquote(uri[len("file://") :].removeprefix("localhost"))
    else:
        path = os.path.expanduser(uri)
    return os.path.abspath(path)


def split_s3(uri: str) -> tuple[str, str]:
    """`s3://bucket/key` -> bucket and key. The key is taken as it stands: nothing in it is an escape.

    Raises:
        StorageError: UNSUPPORTED_URI without a bucket.
    """
    bucket, _, key = uri[len("s3://") :].partition("/")
    if not bucket:
        raise StorageError(ErrorKind.UNSUPPORTED_URI, f"{uri}: no bucket; write s3://bucket/key")
    return bucket, key
