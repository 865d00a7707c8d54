"""What reaches Gradio's server: nothing that reads files or fetches from elsewhere, for nobody whom the browser was
tricked into speaking for, and no more uploads than fit.

A request names an upload by its path on this machine. Gradio, mounted into another application, takes any path, and
downloads one that is a URL: here only those in the folder of uploads pass.
"""

import ipaddress
import json
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from pathlib import Path
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]
App = Callable[[Scope, Receive, Send], Awaitable[None]]

_CLOSED = ("/file=", "/file/", "/proxy=", "/monitoring", "/stream/", "/deep_link", "/component_server")
"""Routes that the page does not use: they read files, fetch from other hosts, or tell of other people's requests."""
_UPLOAD = "/upload"
_MAX_BODY_BYTES = 1 << 20
"""Of a request that is no upload: what has been filled in on the page."""
_HEADERS = (
    (
        b"content-security-policy",
        b"default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval' blob:; style-src 'self' 'unsafe-inline'; "
        b"img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; worker-src 'self' blob:; "
        b"object-src 'none'; base-uri 'self'; form-action 'self'; frame-ancestors 'none'",
    ),
    (b"referrer-policy", b"no-referrer"),
    (b"x-content-type-options", b"nosniff"),
)


class Guard:
    """ASGI middleware."""

    def __init__(self, app: App, *, only_loopback: bool, uploads: Path, max_uploaded_bytes: int) -> None:
        """
        Args:
            only_loopback: refuse requests that name another host, as a page elsewhere would whose name was made to
                point here.
            uploads: a folder that is refused further files while it holds more than `max_uploaded_bytes`.
        """
        self._app, self._only_loopback = app, only_loopback
        self._uploads, self._max_uploaded_bytes = uploads, max_uploaded_bytes

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self._app(scope, receive, send)
            return
        refused = self._refused(scope)
        if refused is None and scope["method"] == "POST" and not scope["path"].endswith(_UPLOAD):
            body = await _body(receive)
            refused, receive = self._refused_body(body), _again(body, receive)
        if refused is not None:
            await _refuse(send, *refused)
            return

        async def send_with_headers(message: MutableMapping[str, Any]) -> None:
            if message["type"] == "http.response.start":
                message = {**message, "headers": [*message.get("headers", ()), *_HEADERS]}
            await send(message)

        await self._app(scope, receive, send_with_headers)

    def _refused(self, scope: Scope) -> tuple[int, str] | None:
        path = scope["path"]
        if scope["type"] == "websocket" or any(part in path for part in _CLOSED):
            return 403, "this route is closed"
        if self._only_loopback and not is_loopback(
            _host_of(dict(scope["headers"]).get(b"host", b"").decode("latin-1"))
        ):
            return 403, "this app answers on loopback only"
        if path.endswith(_UPLOAD) and _size(self._uploads) > self._max_uploaded_bytes:
            return 413, "the app holds too many uploads: try again later"
        return None

    def _refused_body(self, body: bytes) -> tuple[int, str] | None:
        if len(body) > _MAX_BODY_BYTES:
            return 413, "the request is too long"
        try:
            value = json.loads(body or b"null")
        except (ValueError, RecursionError):
            return 400, "the request is not JSON"
        if all(self._is_upload(path) for path in _paths_in(value)):
            return None
        return 403, "the request names a file that was not uploaded"

    def _is_upload(self, path: object) -> bool:
        try:
            return isinstance(path, str) and Path(path).resolve().is_relative_to(self._uploads.resolve())
        except (OSError, ValueError):  # too long, or with a null in it
            return False


def is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


async def _body(receive: Receive) -> bytes:
    """Cut off soon after what is allowed."""
    body = b""
    while len(body) <= _MAX_BODY_BYTES:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body", False):
            break
    return body


def _again(body: bytes, receive: Receive) -> Receive:
    """What has been received, for whoever comes next, and then what follows it."""
    waiting = [{"type": "http.request", "body": body, "more_body": False}]

    async def receive_again() -> MutableMapping[str, Any]:
        return waiting.pop() if waiting else await receive()

    return receive_again


async def _refuse(send: Send, status: int, text: str) -> None:
    await send({"type": "http.response.start", "status": status, "headers": [(b"content-type", b"text/plain")]})
    await send({"type": "http.response.body", "body": text.encode()})


def _paths_in(value: object) -> Iterator[object]:
    """What stands under the key `path`, however deep."""
    waiting = [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, dict):
            if "path" in one:
                yield one["path"]
            waiting += one.values()
        elif isinstance(one, list):
            waiting += one


def _host_of(header: str) -> str:
    """Without its port and the brackets of an IPv6 address."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())
