"""The error code of an S3 answer -> a `StorageError` that says what to do.

It knows the codes of S3 and its imitators, and no client library.
"""

from pipeline.storage import StorageError, split_s3
from schemas.errors import ErrorKind

_CREDENTIALS = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or the AWS_PROFILE in use"

_FORBIDDEN = {
    "AccessDenied": "access denied; give these credentials read (output: write and delete) rights there",
    "AllAccessDisabled": "access is disabled by the owner of the bucket",
    "InvalidAccessKeyId": f"the store does not know this access key; {_CREDENTIALS}",
    "SignatureDoesNotMatch": f"the secret key does not belong to this access key; {_CREDENTIALS}",
    "AuthFailure": f"the store refused the credentials; {_CREDENTIALS}",
    "InvalidToken": f"the store refused the session token; {_CREDENTIALS}",
    "ExpiredToken": f"the session token has expired; {_CREDENTIALS}",
    "TokenRefreshRequired": f"the session token has expired; {_CREDENTIALS}",
    "RequestTimeTooSkewed": "the clock of this machine differs too much from the store's; set the clock",
    "InvalidObjectState": "the object is archived; restore it first",
    "PermanentRedirect": "the bucket is in another region; set AWS_DEFAULT_REGION or AWS_ENDPOINT_URL",
    "AuthorizationHeaderMalformed": "the bucket is in another region; set AWS_DEFAULT_REGION",
}
_TRANSIENT = (
    "BadDigest",
    "ConditionalRequestConflict",
    "IncompleteBody",
    "InternalError",
    "OperationAborted",
    "RequestTimeout",
    "ServiceUnavailable",
    "SlowDown",
    "TemporaryRedirect",
    "XAmzContentSHA256Mismatch",
)


def client_failed(uri: str, detail: str) -> StorageError:
    """Nothing was asked: credentials could not be found or fetched, or the settings of this side are wrong."""
    return StorageError(
        ErrorKind.FORBIDDEN, f"{uri}: {detail}; {_CREDENTIALS}, or set AWS_NO_SIGN_REQUEST=1 for a public bucket"
    )


def no_answer(uri: str, detail: str) -> StorageError:
    """No answer, or half of one."""
    return StorageError(
        ErrorKind.STORE_UNAVAILABLE,
        f"{uri}: no answer from the store: {detail}; check AWS_ENDPOINT_URL and the network, then rerun",
    )


def refused(uri: str, *, code: str, status: int, message: str) -> StorageError:
    """The store answered with an error.

    Args:
        code: S3's own, e.g. `NoSuchKey`; only the HTTP status as text where the answer had no body (HEAD).
        status: the HTTP status.
    """
    if code == "NoSuchBucket":
        bucket, _ = split_s3(uri)
        return StorageError(ErrorKind.MISSING, f"{uri}: bucket {bucket!r} does not exist; check its name")
    if code == "NoSuchKey" or status == 404:
        return StorageError(ErrorKind.MISSING, f"{uri}: no such object; check bucket and key")
    if code in _FORBIDDEN:
        return StorageError(ErrorKind.FORBIDDEN, f"{uri}: {_FORBIDDEN[code]} ({code})")
    if status in (401, 403):
        return StorageError(ErrorKind.FORBIDDEN, f"{uri}: {_FORBIDDEN['AccessDenied']} ({code})")
    if code.startswith(_TRANSIENT) or "Throttl" in code or status in (408, 429) or status >= 500:
        return StorageError(
            ErrorKind.STORE_UNAVAILABLE, f"{uri}: the store is busy or failing ({code}: {message}); rerun later"
        )
    if code in ("InvalidBucketName", "KeyTooLongError", "InvalidURI"):
        return StorageError(ErrorKind.UNSUPPORTED_URI, f"{uri}: is not a possible S3 name ({code})")
    return StorageError(ErrorKind.FORBIDDEN, f"{uri}: the store refused the request ({code}: {message})")
