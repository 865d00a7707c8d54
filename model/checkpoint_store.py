"""An s3:// prefix -> the checkpoint files directly under it, ranges of them, and what the store says of their content.

The only file of the model that holds a client of a store; boto3 is imported with the first one. Knows nothing of what
is kept on this machine.
"""

import contextlib
import logging
import math
import os
import random
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

from model.object_checksum import ObjectChecksum, checksum_of

PATIENCE_VARIABLE = "LABELMILL_STORE_PATIENCE_S"
PATIENCE_S = 300.0
FIRST_CONTACT_S = 10.0
"""For the listing: a mistyped endpoint should not take minutes to be named."""
NUM_CONNECTIONS = 16

_CONNECT_TIMEOUT_S, _READ_TIMEOUT_S = 10, 20
_FIRST_WAIT_SHARE, _LONGEST_WAIT_SHARE = 1 / 3000, 1 / 30
_MAY_PASS_STATUS = (429, 500, 502, 503, 504)
_MAY_PASS_CODES = ("SlowDown", "RequestTimeout", "InternalError", "ServiceUnavailable")
_CHANGED_STATUS = (404, 412, 416)

T = TypeVar("T")
_log = logging.getLogger(__name__)


class StoreChanged(Exception):  # noqa: N818 - not a fault: whoever reads lists again
    """An object is no longer the one that was listed."""


@dataclass(frozen=True, kw_only=True)
class StoredFile:
    name: str
    key: str
    etag: str
    num_bytes: int


class CheckpointStore:
    """The objects directly under `s3://bucket/prefix`; endpoint and credentials come from the usual AWS environment.

    Every request is asked again until it is answered or the patience is spent. Raises ValueError, naming the URI, for
    whatever will not pass. Its methods may be called from many threads.
    """

    def __init__(self, uri: str) -> None:
        bucket, _, prefix = uri.removeprefix("s3://").partition("/")
        self.uri, self.bucket = uri, bucket
        self.prefix = prefix.rstrip("/") + "/" if prefix.strip("/") else ""
        self._patience_s = _patience_s()
        self._closing = threading.Event()
        with self._errors_named():
            try:
                self._client = _new_client()
            except ValueError as error:  # botocore's way to say that the endpoint is not a URL
                raise ValueError(f"checkpoint {uri!r} could not be fetched: {error}") from None

    def list_files(self, is_wanted: Callable[[str], bool]) -> tuple[StoredFile, ...]:
        """In the order of their names. Raises ValueError where no config.json is among them."""
        try:
            found = self._ask(self._list, patience_s=min(FIRST_CONTACT_S, self._patience_s))
        except StoreChanged as answer:  # to a listing the same codes say that there is nothing to list
            raise ValueError(f"checkpoint {self.uri!r} could not be fetched: {answer}") from None
        wanted = sorted((file for file in found if is_wanted(file.name)), key=lambda file: file.name)
        if not any(file.name == "config.json" for file in wanted):
            raise ValueError(
                f"checkpoint {self.uri!r} holds no config.json ({len(found)} objects lie directly under it)"
            )
        return tuple(wanted)

    def read_range(self, file: StoredFile, offset: int, num_bytes: int) -> bytes:
        """Raises StoreChanged if the object is not the one that was listed."""
        return self._ask(lambda: self._read(file, offset, num_bytes))

    def checksum(self, file: StoredFile) -> ObjectChecksum | None:
        """What the store says that all bytes of the object give; None where it says nothing that can be checked."""
        head = self._head(file, IfMatch=f'"{file.etag}"', ChecksumMode="ENABLED")
        part = self._head(file, PartNumber=1) if "-" in file.etag else {}  # the first part's size is that of most
        part_bytes = part["ContentLength"] if "PartsCount" in part else None
        return checksum_of(head, file.etag, num_bytes=file.num_bytes, part_bytes=part_bytes) if head else None

    def close(self) -> None:
        """Lets requests of other threads that wait for another try fail at once."""
        self._closing.set()

    def _list(self) -> list[StoredFile]:
        pages = self._client.get_paginator("list_objects_v2").paginate(
            Bucket=self.bucket, Prefix=self.prefix, Delimiter="/"
        )
        return [self._stored(item) for page in pages for item in page.get("Contents", [])]

    def _stored(self, item: dict[str, Any]) -> StoredFile:
        key = item["Key"]
        name = key[len(self.prefix) :]
        return StoredFile(name=name, key=key, etag=item["ETag"].strip('"'), num_bytes=item["Size"])

    def _read(self, file: StoredFile, offset: int, num_bytes: int) -> bytes:
        answer = self._client.get_object(
            Bucket=self.bucket,
            Key=file.key,
            Range=f"bytes={offset}-{offset + num_bytes - 1}",
            IfMatch=f'"{file.etag}"',
        )
        with contextlib.closing(answer["Body"]) as body:
            # Not every store looks at If-Match, or at Range.
            given = answer.get("ContentRange", "no range")
            if answer["ETag"].strip('"') != file.etag:
                raise StoreChanged(file.key)
            if given != f"bytes {offset}-{offset + num_bytes - 1}/{file.num_bytes}":
                raise ValueError(f"checkpoint {self.uri!r}: asked for bytes {offset} ff. of {file.key!r}, got {given}")
            data: bytes = body.read()
        assert len(data) == num_bytes  # the client library compares with the length of the answer
        return data

    def _head(self, file: StoredFile, **details: Any) -> dict[str, Any]:
        """Empty where the store refuses: what it would say is asked for to be sure, not to go on. Some refuse a detail
        with the status that others have for an object that has changed, which the next listing will show.
        """
        try:
            return self._ask(lambda: self._client.head_object(Bucket=self.bucket, Key=file.key, **details))
        except (_RefusedError, StoreChanged) as error:
            _log.info("checkpoint %r: of %s the store does not tell %s (%s)", self.uri, file.name, details, error)
            return {}

    def _ask(self, ask: Callable[[], T], *, patience_s: float | None = None) -> T:
        patience_s = self._patience_s if patience_s is None else patience_s
        began_s, wait_s = time.monotonic(), patience_s * _FIRST_WAIT_SHARE
        while True:
            try:
                with self._errors_named():
                    return ask()
            except _MayPassError as error:
                if time.monotonic() - began_s + wait_s > patience_s or self._closing.is_set():
                    raise ValueError(
                        f"checkpoint {self.uri!r} could not be fetched: {error}, for {patience_s:g} s"
                    ) from None
            self._closing.wait(wait_s * random.uniform(0.5, 1.5))
            wait_s = min(2 * wait_s, patience_s * _LONGEST_WAIT_SHARE)

    @contextlib.contextmanager
    def _errors_named(self) -> Iterator[None]:
        """The client library's errors as ours. What a store or a credential provider says in words is left out: it may
        quote credentials.
        """
        try:
            from botocore.exceptions import (
                BotoCoreError,
                ClientError,
                ConnectionError,
                CredentialRetrievalError,
                HTTPClientError,
                IncompleteReadError,
            )
            from botocore.parsers import ResponseParserError
        except ImportError:
            raise ValueError("reading a checkpoint from s3:// needs: pip install boto3") from None
        try:
            yield
        except ClientError as error:
            raise self._refused(error.response) from None
        except (ConnectionError, HTTPClientError, IncompleteReadError, ResponseParserError, OSError) as error:
            raise _MayPassError(" ".join(str(error).split()).rstrip(".")) from None
        except CredentialRetrievalError:
            raise ValueError(f"checkpoint {self.uri!r} could not be fetched: the credential provider failed") from None
        except BotoCoreError as error:
            raise ValueError(f"checkpoint {self.uri!r} could not be fetched: {error}") from None

    def _refused(self, response: dict[str, Any]) -> Exception:
        code = response.get("Error", {}).get("Code", "")
        status = response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        said = f"the store answers {code} (HTTP {status})"
        if status in _MAY_PASS_STATUS or code in _MAY_PASS_CODES:
            return _MayPassError(said)
        if status in _CHANGED_STATUS and code != "NoSuchBucket":
            return StoreChanged(said)
        return _RefusedError(f"checkpoint {self.uri!r} could not be fetched: {said}")


class _MayPassError(Exception):
    pass


class _RefusedError(ValueError):
    pass


def _patience_s() -> float:
    text = os.environ.get(PATIENCE_VARIABLE, "").strip()
    try:
        patience_s = float(text) if text else PATIENCE_S
    except ValueError:
        patience_s = math.nan
    if not 0 <= patience_s < math.inf:
        raise ValueError(f"{PATIENCE_VARIABLE} is {text!r}; set it to a number of seconds, or to 0 to ask once")
    return patience_s


def _new_client() -> Any:  # boto3 builds its clients' types at run time
    import boto3
    from botocore.config import Config

    # Many compatible stores refuse the trailing checksums that the newer SDKs add unasked.
    config = Config(
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=_CONNECT_TIMEOUT_S,
        read_timeout=_READ_TIMEOUT_S,
        max_pool_connections=2 * NUM_CONNECTIONS,  # checksums are asked for at the same time
        s3={"addressing_style": "path"} if os.environ.get("AWS_ENDPOINT_URL") else None,
    )
    return boto3.session.Session().client("s3", config=config)  # the default one is not safe to share between threads
