"""Records -> JSON that every reader takes: one line, text as it is, no NaN; and the file in which it is collected."""

import base64
import datetime
import decimal
import json
import math
import tempfile
from collections.abc import Mapping
from types import TracebackType
from typing import IO, Any

_LINE_BREAKS = {code: f"\\u{code:04x}" for code in (0x85, 0x2028, 0x2029)}
"""Python's `splitlines` and others take them for the end of a line. JSON escapes the rest of those."""


def json_line(record: Mapping[str, Any]) -> str:
    """Without a line break at its end. Numbers that JSON lacks become null, dates and decimals text, bytes base64."""
    return json.dumps(_plain(record), ensure_ascii=False, allow_nan=False).translate(_LINE_BREAKS)


def _plain(value: Any) -> Any:
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else None
        case Mapping():
            return {str(key): _plain(of) for key, of in value.items()}
        case list() | tuple():
            return [_plain(of) for of in value]
        case bytes():
            return base64.b64encode(value).decode()
        case datetime.date() | datetime.time():
            return value.isoformat()
        case decimal.Decimal() | datetime.timedelta():
            return str(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


class Spool:
    """A text that grows on this machine's disk until it is whole."""

    def __init__(self) -> None:
        self.file: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - closed by the with statement of the user

    def write(self, text: str) -> None:
        self.file.write(text.encode())

    def __enter__(self) -> "Spool":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.file.close()
