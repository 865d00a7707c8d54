"""`s3://bucket/key` -> a `Store` over S3 and what speaks its API.

It knows no images and no tables. Endpoint, region and credentials come from the usual AWS chain and environment.
"""

import contextlib
import functools
import io
import os
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import boto3
from botocore import UNSIGNED
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    CredentialRetrievalError,
    NoCredentialsError,
    ParamValidationError,
    PartialCredentialsError,
    ProfileNotFound,
    TokenRetrievalError,
)

from pipeline.s3_errors import no_credentials, refused, unreachable
from pipeline.storage import ObjectInfo, StorageError, Store, check_readable, split_s3
from schemas.errors import ErrorKind

_READ_AHEAD_BYTES = 1 << 20
_NO_CREDENTIALS = (
    NoCredentialsError,
    PartialCredentialsError,
    CredentialRetrievalError,
    TokenRetrievalError,
    ProfileNotFound,
)
_CLIENT_LOCK = threading.Lock()


@dataclass(frozen=True, kw_only=True)
class ListedPage:
    """`folders` are keys that end in the delimiter; `next_token` is empty on the last page."""

    objects: Sequence[ObjectInfo]
    folders: Sequence[str]
    next_token: str


class S3Store(Store):
    """Objects of any bucket. `version` is the ETag without its quotes."""

    def list(self, prefix_uri: str, *, starting_with: str = "") -> Iterator[ObjectInfo]:
        bucket, key = split_s3(prefix_uri)
        folder = key.rstrip("/") + "/" if key.strip("/") else ""
        with _s3_errors(prefix_uri):
            pages = _client().get_paginator("list_objects_v2")
            for page in pages.paginate(Bucket=bucket, Prefix=folder + starting_with):
                for entry in page.get("Contents", ()):
                    if not entry["Key"].endswith("/"):
                        uri = f"s3://{bucket}/{entry['Key']}"
                        yield _info(uri, num_bytes=entry["Size"], etag=entry["ETag"])

    def list_page(
        self, bucket: str, *, prefix: str, start_after: str = "", token: str = "", delimiter: str = ""
    ) -> "ListedPage":
        """At most a thousand objects and, with a delimiter, folders; see `pipeline.s3_listing`.

        Args:
            start_after: a key; only later ones are listed.
            token: of the page before, which had the same other arguments.
        """
        where = {"StartAfter": start_after, "ContinuationToken": token, "Delimiter": delimiter}
        with _s3_errors(f"s3://{bucket}/{prefix}"):
            page = _client().list_objects_v2(
                Bucket=bucket, Prefix=prefix, **{name: value for name, value in where.items() if value}
            )
        return ListedPage(
            objects=[
                _info(f"s3://{bucket}/{entry['Key']}", num_bytes=entry["Size"], etag=entry["ETag"])
                for entry in page.get("Contents", ())
            ],
            folders=[entry["Prefix"] for entry in page.get("CommonPrefixes", ())],
            next_token=page.get("NextContinuationToken", "") if page["IsTruncated"] else "",
        )

    def head(self, uri: str) -> ObjectInfo:
        bucket, key = split_s3(uri)
        with _s3_errors(uri):
            found = _client().head_object(Bucket=bucket, Key=key)
            return _info(uri, num_bytes=found["ContentLength"], etag=found["ETag"])

    def get(self, uri: str, *, max_bytes: int | None = None, version: str = "") -> bytes:
        bucket, key = split_s3(uri)
        with _s3_errors(uri):
            found = _client().get_object(Bucket=bucket, Key=key)
            with contextlib.closing(found["Body"]) as body:
                info = _info(uri, num_bytes=found["ContentLength"], etag=found["ETag"])
                check_readable(info, max_bytes=max_bytes, version=version)
                return cast(bytes, body.read())

    def open(self, uri: str) -> BinaryIO:
        return cast(BinaryIO, io.BufferedReader(_RangedObject(self.head(uri)), buffer_size=_READ_AHEAD_BYTES))

    def put(self, uri: str, data: bytes) -> None:
        bucket, key = split_s3(uri)
        with _s3_errors(uri):
            _client().put_object(Bucket=bucket, Key=key, Body=data)

    def put_if_absent(self, uri: str, data: bytes) -> bool:
        """On a store without conditional puts (it answers NotImplemented) this looks first and then writes:
        two writers within one round trip of each other may then both be told True.
        """
        bucket, key = split_s3(uri)
        with _s3_errors(uri):
            try:
                _client().put_object(Bucket=bucket, Key=key, Body=data, IfNoneMatch="*")
            except ClientError as error:
                return self._after_refused_put(uri, data, error)
        return True

    def _after_refused_put(self, uri: str, data: bytes, error: ClientError) -> bool:
        code = error.response["Error"]["Code"]
        if code in ("PreconditionFailed", "412"):
            # The answer to a first attempt may have been lost: then the object that is in the way is ours.
            retried = error.response["ResponseMetadata"].get("RetryAttempts", 0) > 0
            return retried and self.get(uri) == data
        if code in ("ConditionalRequestConflict", "409"):
            return False
        if code in ("NotImplemented", "501"):
            if self.exists(uri):
                return False
            self.put(uri, data)
            return True
        raise error

    def delete(self, uri: str) -> None:
        bucket, key = split_s3(uri)
        with _s3_errors(uri):
            _client().delete_object(Bucket=bucket, Key=key)

    def exists(self, uri: str) -> bool:
        return bool(split_s3(uri)[1]) and super().exists(uri)


class _RangedObject(io.RawIOBase):
    """Every read is one ranged GET, and fails once the object is not the one that was opened."""

    def __init__(self, info: ObjectInfo) -> None:
        self._info = info
        self._bucket, self._key = split_s3(info.uri)
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

    def readinto(self, buffer: Any) -> int:
        num_bytes = min(len(buffer), self._info.num_bytes - self._position)
        if num_bytes <= 0:
            return 0
        data = self._get_range(self._position, num_bytes)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def _get_range(self, first: int, num_bytes: int) -> bytes:
        with _s3_errors(self._info.uri):
            found = _client().get_object(
                Bucket=self._bucket, Key=self._key, Range=f"bytes={first}-{first + num_bytes - 1}"
            )
            with contextlib.closing(found["Body"]) as body:
                current = _info(self._info.uri, num_bytes=num_bytes, etag=found["ETag"])
                check_readable(current, max_bytes=None, version=self._info.version)
                return cast(bytes, body.read())


def _info(uri: str, *, num_bytes: int, etag: str) -> ObjectInfo:
    return ObjectInfo(uri=uri, num_bytes=num_bytes, version=etag.strip('"'))


def _client() -> BaseClient:
    """This process's client for the AWS settings of the environment as it is now."""
    settings = tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))
    with _CLIENT_LOCK:  # creating a client is not thread-safe; using one is
        return _client_for(os.getpid(), settings)


@functools.lru_cache(maxsize=4)
def _client_for(pid: int, settings: tuple[tuple[str, str], ...]) -> BaseClient:
    """The arguments are only its place in the cache; a forked process must not share connections."""
    anonymous = dict(settings).get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes")
    client = _new_client("auto", anonymous)
    # Addresses like bucket.127.0.0.1 do not resolve, and few private endpoints have wildcard names.
    is_aws = ".amazonaws.com" in client.meta.endpoint_url
    return client if is_aws else _new_client("path", anonymous)


def _new_client(addressing_style: str, anonymous: bool) -> BaseClient:
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 3},
        connect_timeout=10,
        read_timeout=60,
        max_pool_connections=64,
        # Many compatible stores refuse the trailing checksums that newer SDKs add on their own.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": addressing_style},
        **({"signature_version": UNSIGNED} if anonymous else {}),
    )
    return boto3.session.Session().client("s3", config=config)


@contextlib.contextmanager
def _s3_errors(uri: str) -> Iterator[None]:
    try:
        yield
    except StorageError:
        raise
    except ClientError as error:
        answer = error.response.get("Error", {})
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        raise refused(uri, code=answer.get("Code", ""), status=status, message=answer.get("Message", "")) from error
    except _NO_CREDENTIALS as error:
        raise no_credentials(uri, str(error).rstrip(".")) from error
    except ParamValidationError as error:
        raise StorageError(ErrorKind.UNSUPPORTED_URI, f"{uri}: is not a possible S3 name ({error})") from error
    except BotoCoreError as error:
        raise unreachable(uri, str(error).rstrip(".")) from error
    except ValueError as error:  # botocore's way to say that the endpoint is not a URL
        raise StorageError(ErrorKind.UNSUPPORTED_URI, f"{uri}: {error}; check AWS_ENDPOINT_URL") from error
