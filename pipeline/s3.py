"""`s3://bucket/key` -> a `Store` over S3 and what speaks its API.

It knows no images and no tables, and leaves it to `pipeline.patience` how long to go on asking. Endpoint, region and
credentials come from the usual AWS chain and environment.
"""

import contextlib
import functools
import io
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar, cast

from botocore.exceptions import ClientError

from pipeline import s3_client
from pipeline.patience import Patience
from pipeline.s3_client import code_of, reader, s3_errors, writer
from pipeline.s3_errors import no_answer
from pipeline.s3_upload import put_file
from pipeline.storage import ObjectInfo, StorageError, Store, check_readable, new_probe_uri, no_such_bytes, split_s3
from schemas.errors import ErrorKind

SLOWEST_BYTES_PER_S = 10_000
"""A body that comes more slowly than this is asked for again."""

_READ_AHEAD_BYTES = 1 << 20
_PIECE_BYTES = 1 << 16

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True)
class ListedPage:
    """`folders` are keys that end in the delimiter; `next_token` is empty on the last page."""

    objects: Sequence[ObjectInfo]
    folders: Sequence[str]
    next_token: str


class S3Store(Store):
    """Objects of any bucket. `version` is the ETag without its quotes.

    Every request, be it one page of a listing or one range of an object, is asked again until it is answered or
    `patience` is spent; boto3 itself asks once.
    """

    def __init__(self, *, patience: Patience | None = None) -> None:
        self._patience = patience or Patience.from_environment()

    def list(self, prefix_uri: str, *, starting_with: str = "") -> Iterator[ObjectInfo]:
        bucket, key = split_s3(prefix_uri)
        folder = key.rstrip("/") + "/" if key.strip("/") else ""
        last_key, start = "", dict[str, str]()
        while True:
            page = self._list_page(prefix_uri, Bucket=bucket, Prefix=folder + starting_with, **start)
            entries = [entry for entry in page.get("Contents", ()) if entry["Key"] > last_key]
            for entry in entries:
                if not entry["Key"].endswith("/"):
                    yield _info(f"s3://{bucket}/{entry['Key']}", num_bytes=entry["Size"], etag=entry.get("ETag"))
            if not page.get("IsTruncated"):
                return
            if entries:  # a key outlives any token
                last_key = entries[-1]["Key"]
                start = {"StartAfter": last_key}
            elif "NextContinuationToken" in page:
                start = {"ContinuationToken": page["NextContinuationToken"]}
            else:
                raise no_answer(prefix_uri, f"the listing breaks off after {last_key!r}")

    def _list_page(self, uri: str, **where: str) -> Mapping[str, Any]:
        return self._ask(f"list {where}", uri, lambda: writer().list_objects_v2(**where))

    def list_page(
        self, bucket: str, *, prefix: str, start_after: str = "", token: str = "", delimiter: str = ""
    ) -> "ListedPage":
        """At most a thousand objects and, with a delimiter, folders; see `pipeline.s3_listing`.

        Args:
            start_after: a key; only later ones are listed.
            token: of the page before, which had the same other arguments.
        """
        where = {"StartAfter": start_after, "ContinuationToken": token, "Delimiter": delimiter}
        uri = f"s3://{bucket}/{prefix}"
        page = self._list_page(uri, Bucket=bucket, Prefix=prefix, **{name: of for name, of in where.items() if of})
        next_token = page.get("NextContinuationToken", "") if page.get("IsTruncated") else ""
        if page.get("IsTruncated") and not next_token:
            raise no_answer(uri, "the listing breaks off")
        return ListedPage(
            objects=[
                _info(f"s3://{bucket}/{entry['Key']}", num_bytes=entry["Size"], etag=entry.get("ETag"))
                for entry in page.get("Contents", ())
            ],
            folders=[entry["Prefix"] for entry in page.get("CommonPrefixes", ())],
            next_token=next_token,
        )

    def head(self, uri: str) -> ObjectInfo:
        return self._ask("head", uri, functools.partial(_head, uri))

    def get(self, uri: str, *, max_bytes: int | None = None, version: str = "") -> bytes:
        bucket, key = split_s3(uri)

        def request() -> bytes:
            found = reader().get_object(Bucket=bucket, Key=key)
            with contextlib.closing(found["Body"]) as body:
                info = _info(uri, num_bytes=found.get("ContentLength"), etag=found.get("ETag"))
                check_readable(info, max_bytes=max_bytes, version=version)
                return _read(body, info)

        return self._ask("get", uri, request)

    def open(self, uri: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_RangedObject(self, self.head(uri)), buffer_size=_READ_AHEAD_BYTES))

    def get_range(self, info: ObjectInfo, first: int, num_bytes: int) -> bytes:
        bucket, key = split_s3(info.uri)
        byte_range = f"bytes={first}-{first + num_bytes - 1}"

        def request() -> bytes:
            try:
                found = reader().get_object(Bucket=bucket, Key=key, Range=byte_range)
            except ClientError as error:
                if code_of(error) in ("InvalidRange", "416"):
                    raise no_such_bytes(info.uri, first, num_bytes) from None
                raise
            with contextlib.closing(found["Body"]) as body:
                current = _info(info.uri, num_bytes=num_bytes, etag=found.get("ETag"))
                check_readable(current, max_bytes=None, version=info.version)
                if found.get("ContentLength") != num_bytes:
                    answered = f"{found.get('ContentLength')} bytes where {num_bytes} were asked for"
                    raise StorageError(ErrorKind.STORE_UNAVAILABLE, f"{info.uri}: the store answered {answered}")
                return _read(body, current)

        return self._ask(f"get {byte_range}", info.uri, request)

    def put(self, uri: str, data: bytes) -> None:
        self._ask("put", uri, functools.partial(_put, uri, data))

    def put_file(self, uri: str, file: BinaryIO) -> None:
        put_file(self, uri, file, self._ask)

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """On a store without conditional puts (it refuses them, or takes them for plain ones) this looks first and then
        writes: two writers within one round trip of each other may then both be told True.
        """
        asked_before = False

        def request() -> bool:
            nonlocal asked_before
            # The answer to an earlier attempt may have been lost: then the object that is in the way is ours.
            may_be_ours, asked_before = asked_before, True
            if not _exists(uri) and _put_if_absent(uri, data):
                return True
            return may_be_ours and _holds(uri, data)

        return self._ask("put_if_absent", uri, request)

    def has_conditional_puts(self, folder_uri: str) -> bool:
        probe_uri = new_probe_uri(folder_uri)

        def request() -> bool:
            with contextlib.suppress(_ConditionalPutError):
                _conditional_put(probe_uri, b"probe")
                return not _conditional_put(probe_uri, b"probe")
            return False

        try:
            return self._ask("probe", probe_uri, request)
        finally:
            self.delete(probe_uri)

    def delete(self, uri: str) -> None:
        bucket, key = split_s3(uri)
        self._ask("delete", uri, lambda: writer().delete_object(Bucket=bucket, Key=key))

    def exists(self, uri: str) -> bool:
        return bool(split_s3(uri)[1]) and super().exists(uri)

    def _ask(self, what: str, uri: str, request: Callable[[], T]) -> T:
        def attempt() -> T:
            with s3_errors(uri):
                return request()

        def probe() -> None:
            with s3_errors(uri):
                reader().head_bucket(Bucket=split_s3(uri)[0])

        return s3_client.health().ask(attempt, key=f"{what} {uri}", patience=self._patience, probe=probe)


class _RangedObject(io.RawIOBase):
    """Every read is one ranged GET, and fails once the object is not the one that was opened."""

    def __init__(self, store: S3Store, info: ObjectInfo) -> None:
        self._store, self._info = store, info
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        origin = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._info.num_bytes}[whence]
        self._position = max(0, origin + offset)
        return self._position

    def readall(self) -> bytes:
        # The one that we would inherit asks for 8 KiB at a time.
        num_bytes = max(0, self._info.num_bytes - self._position)
        data = self._store.get_range(self._info, self._position, num_bytes) if num_bytes else b""
        self._position += num_bytes
        return data

    def readinto(self, buffer: Any) -> int:
        num_bytes = min(len(buffer), self._info.num_bytes - self._position)
        if num_bytes <= 0:
            return 0
        buffer[:num_bytes] = self._store.get_range(self._info, self._position, num_bytes)
        self._position += num_bytes
        return num_bytes


class _ConditionalPutError(Exception):
    """The store says that it knows no conditional puts."""


def _head(uri: str) -> ObjectInfo:
    bucket, key = split_s3(uri)
    found = reader().head_object(Bucket=bucket, Key=key)
    return _info(uri, num_bytes=found.get("ContentLength"), etag=found.get("ETag"))


def _exists(uri: str) -> bool:
    try:
        _head(uri)
    except ClientError as error:
        if code_of(error) in ("404", "NoSuchKey"):
            return False
        raise
    return True


def _holds(uri: str, data: bytes) -> bool:
    bucket, key = split_s3(uri)
    try:
        found = reader().get_object(Bucket=bucket, Key=key)
    except ClientError as error:
        if code_of(error) == "NoSuchKey":
            return False
        raise
    with contextlib.closing(found["Body"]) as body:
        info = _info(uri, num_bytes=found.get("ContentLength"), etag=found.get("ETag"))
        return info.num_bytes == len(data) and _read(body, info) == data


def _put(uri: str, data: bytes, **conditions: str) -> None:
    bucket, key = split_s3(uri)
    writer().put_object(Bucket=bucket, Key=key, Body=data, **conditions)


def _put_if_absent(uri: str, data: bytes) -> bool:
    try:
        return _conditional_put(uri, data)
    except _ConditionalPutError:
        _put(uri, data)
        return True


def _conditional_put(uri: str, data: bytes) -> bool:
    try:
        _put(uri, data, IfNoneMatch="*")
    except ClientError as error:
        code = code_of(error)
        if code in ("PreconditionFailed", "412"):
            return False
        if code in ("NotImplemented", "501"):
            raise _ConditionalPutError from error
        raise
    return True


def _read(body: Any, info: ObjectInfo) -> bytes:
    """The whole body. A time-out of the client's is about silence; a trickle would keep it waiting for days."""
    deadline_s = time.monotonic() + s3_client.READ_TIMEOUT_S + info.num_bytes / SLOWEST_BYTES_PER_S
    pieces = []
    while piece := body.read(_PIECE_BYTES):
        pieces.append(piece)
        if time.monotonic() > deadline_s:
            raise no_answer(info.uri, f"the body came more slowly than {SLOWEST_BYTES_PER_S} bytes/s")
    return b"".join(pieces)


def _info(uri: str, *, num_bytes: int | None, etag: str | None) -> ObjectInfo:
    # An answer that ends within its headers is complete to Python's HTTP client.
    if num_bytes is None or etag is None or etag.count('"') == 1:
        raise no_answer(uri, "its headers are cut short")
    return ObjectInfo(uri=uri, num_bytes=num_bytes, version=etag.strip('"'))
