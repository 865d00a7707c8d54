"""Text that may quote URLs, headers or settings -> the same text without credentials."""

import os
import re

MASK = "***"
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
_URL_VARIABLES = ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy")
_MIN_SECRET_CHARS = 8
"""Shorter ones (`testing`, `secret`) are words that a path may hold as well."""

_USER_INFO = re.compile(r"(://)[^/\s]*@")
_SIGNED = re.compile(
    r"((?:X-Amz-Signature|X-Amz-Credential|X-Amz-Security-Token|AWSAccessKeyId|Credential|Signature)(?:=|%3D|: ?))"
    r"[^\s&,\"'<>)]+",
    re.IGNORECASE,
)


def redacted(text: str) -> str:
    """Masks `user:password@` of URLs, what signs a URL or a request, and the secrets of the environment."""
    for name in _SECRET_VARIABLES:
        value = os.environ.get(name, "")
        if len(value) >= _MIN_SECRET_CHARS:
            text = text.replace(value, MASK)
    for name in _URL_VARIABLES:  # a password may hold characters that the pattern takes for the end of the host
        user_info, at, _ = os.environ.get(name, "").partition("://")[2].rpartition("@")
        if at and user_info:
            text = text.replace(user_info, MASK)
    text = _USER_INFO.sub(rf"\g<1>{MASK}@", text)
    return _SIGNED.sub(rf"\g<1>{MASK}", text)
