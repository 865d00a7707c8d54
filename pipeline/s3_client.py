"""The AWS settings of the environment -> this process's S3 clients, and their errors as `StorageError`s.

It knows boto3 and nothing of what is asked.
"""

import contextlib
import functools
import os
import threading
from collections.abc import Iterator

import boto3
import urllib3
from botocore import UNSIGNED
from botocore.client import BaseClient
from botocore.config import Config
from botocore.exceptions import (
    BotoCoreError,
    ClientError,
    ConnectionError,
    CredentialRetrievalError,
    EndpointProviderError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    ParamValidationError,
)
from botocore.parsers import ResponseParserError

from pipeline.patience import StoreHealth
from pipeline.s3_errors import client_failed, no_answer, refused
from pipeline.storage import StorageError
from schemas.errors import ErrorKind

CONNECT_TIMEOUT_S = 10
READ_TIMEOUT_S = 20
"""Of silence while an object is looked up or read."""
WRITE_TIMEOUT_S = 60
"""Of silence while one is written, removed or listed, which some stores do slowly."""

_MAY_PASS = (
    ConnectionError,
    HTTPClientError,
    IncompleteReadError,
    MetadataRetrievalError,
    ResponseParserError,
    urllib3.exceptions.HTTPError,
    OSError,
)
_CLIENT_LOCK = threading.Lock()


def reader() -> BaseClient:
    """The client for what an object holds, for the AWS settings of the environment as it is now."""
    return _client(READ_TIMEOUT_S)


def writer() -> BaseClient:
    """The client for everything else."""
    return _client(WRITE_TIMEOUT_S)


def health() -> StoreHealth:
    """What this process has seen of the store at the environment's endpoint."""
    with _CLIENT_LOCK:
        return _health_for(os.getpid(), _settings())


def _client(read_timeout_s: float) -> BaseClient:
    with _CLIENT_LOCK:  # creating a client is not thread-safe; using one is
        return _client_for(os.getpid(), _settings(), read_timeout_s)


def _settings() -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, value) for name, value in os.environ.items() if name.startswith("AWS_")))


@functools.lru_cache(maxsize=4)
def _health_for(pid: int, settings: tuple[tuple[str, str], ...]) -> StoreHealth:
    return StoreHealth()


@functools.lru_cache(maxsize=4)
def _session_for(pid: int, settings: tuple[tuple[str, str], ...]) -> boto3.session.Session:
    """Holds the credentials; a session's first client costs twenty times as much as its second."""
    return boto3.session.Session()


@functools.lru_cache(maxsize=8)
def _client_for(pid: int, settings: tuple[tuple[str, str], ...], read_timeout_s: float) -> BaseClient:
    """The arguments are its place in the cache as well; a forked process must not share connections."""
    session = _session_for(pid, settings)
    anonymous = dict(settings).get("AWS_NO_SIGN_REQUEST", "").lower() in ("1", "true", "yes")
    client = _new_client(session, "auto", anonymous, read_timeout_s)
    # Addresses like bucket.127.0.0.1 do not resolve, and few private endpoints have wildcard names.
    is_aws = ".amazonaws.com" in client.meta.endpoint_url
    return client if is_aws else _new_client(session, "path", anonymous, read_timeout_s)


def _new_client(
    session: boto3.session.Session, addressing_style: str, anonymous: bool, read_timeout_s: float
) -> BaseClient:
    config = Config(
        retries={"mode": "standard", "total_max_attempts": 1},
        connect_timeout=CONNECT_TIMEOUT_S,
        read_timeout=read_timeout_s,
        max_pool_connections=64,
        # Many compatible stores refuse the trailing checksums that newer SDKs add on their own.
        request_checksum_calculation="when_required",
        response_checksum_validation="when_required",
        s3={"addressing_style": addressing_style},
        **({"signature_version": UNSIGNED} if anonymous else {}),
    )
    return session.client("s3", config=config)


@contextlib.contextmanager
def s3_errors(uri: str) -> Iterator[None]:
    """Every error of the client library as a `StorageError`, and without its cause, whose text is not ours to mask: a
    traceback would show it.
    """
    try:
        yield
    except StorageError:
        raise
    except ClientError as error:
        status = error.response.get("ResponseMetadata", {}).get("HTTPStatusCode", 0)
        message = error.response.get("Error", {}).get("Message", "")
        raise refused(uri, code=code_of(error), status=status, message=message) from None
    except ParamValidationError:
        raise StorageError(ErrorKind.UNSUPPORTED_URI, f"{uri}: is not a possible S3 name") from None
    except _MAY_PASS as error:
        if "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise client_failed(uri, f"the certificate of the store is not trusted ({error})") from None
        raise no_answer(uri, str(error).rstrip(".")) from None
    except CredentialRetrievalError as error:
        # Its text holds what the provider printed, whatever that was.
        raise client_failed(uri, f"the credential provider {error.kwargs.get('provider')!r} failed") from None
    except (EndpointProviderError, ValueError):  # botocore's ways to say that the endpoint is not a URL
        raise StorageError(
            ErrorKind.UNSUPPORTED_URI, f"{uri}: the store's endpoint is not a URL; check AWS_ENDPOINT_URL"
        ) from None
    except BotoCoreError as error:
        raise client_failed(uri, str(error).rstrip(".")) from None


def code_of(error: ClientError) -> str:
    """S3's own, e.g. `NoSuchKey`; the HTTP status as text where the answer had no body."""
    return str(error.response.get("Error", {}).get("Code", ""))
