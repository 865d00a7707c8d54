"""Text that may quote URLs, headers or settings -> the same text without credentials."""

import os
import re

MASK = "***"
_SECRET_VARIABLES = ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "AWS_SECURITY_TOKEN")
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
    text = _USER_INFO.sub(rf"\g<1>{MASK}@", text)
    return _SIGNED.sub(rf"\g<1>{MASK}", text)
