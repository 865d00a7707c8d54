"""An `http://` or `https://` URL -> what a request needs of it, spelled so that nothing in it can become a second line.

One parser for everything: a host that is checked and a host that is asked cannot be two readings of one text.
"""

from dataclasses import dataclass
from urllib.parse import quote, urlsplit

from pipeline.storage import StorageError, shown_uri, without_password
from schemas.errors import ErrorKind

DEFAULT_PORTS = {"http": 80, "https": 443}
_URL_CHARACTERS = "/%:@!$&'()*+,;=~?"


@dataclass(frozen=True, kw_only=True)
class WebUrl:
    """`text` is without user, password and fragment; `target` is what stands in the request line."""

    text: str
    scheme: str
    host: str
    port: int
    target: str

    @property
    def host_header(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return host if self.port == DEFAULT_PORTS[self.scheme] else f"{host}:{self.port}"


def parse_url(uri: str) -> WebUrl:
    """
    Raises:
        StorageError: UNSUPPORTED_URI for what names no host that could be asked.
    """
    text = without_password(uri).partition("#")[0]
    try:
        parts = urlsplit(text)
        host = parts.hostname or ""
        host = host if ":" in host else host.encode("idna").decode()
        port = parts.port or DEFAULT_PORTS[parts.scheme]
    except (ValueError, KeyError) as error:  # UnicodeError is a ValueError
        raise StorageError(ErrorKind.UNSUPPORTED_URI, f"{shown_uri(uri)!r}: is not a possible URL ({error})") from error
    if not host:
        raise StorageError(ErrorKind.UNSUPPORTED_URI, f"{shown_uri(uri)!r}: names no host")
    target = parts.path if parts.path.startswith("/") else f"/{parts.path}"
    target += f"?{parts.query}" if parts.query else ""
    return WebUrl(text=text, scheme=parts.scheme, host=host, port=port, target=quote(target, safe=_URL_CHARACTERS))
