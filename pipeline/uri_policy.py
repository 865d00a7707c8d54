"""A URI that was found in a table -> the bytes it names, if it may be followed at all.

Whoever wrote the table chose these URIs, and must not read with them whatever the job's machine and credentials can.
The URIs of the job file itself never come here: they are the user's own.
"""

import os
import random
import re
import time
from dataclasses import dataclass
from urllib.parse import unquote

from pipeline.http import HttpStore
from pipeline.patience import Patience
from pipeline.storage import StorageError, canonical_uri, local_path, open_store, shown_uri, split_s3, uri_scheme
from schemas.errors import ErrorKind
from schemas.job import SourceSpec

WEB_ATTEMPTS = 3
_WEB_BACKOFF_S = 0.5


@dataclass(frozen=True, kw_only=True)
class UriPolicy:
    """What URIs in tables are followed; as made, none. Can be pickled."""

    roots: tuple[str, ...] = ()
    """Canonical URIs of folders; only what lies below one of them is read."""
    http: HttpStore | None = None
    """None where images from the web are not allowed."""

    @classmethod
    def of_source(cls, spec: SourceSpec, folder_uri: str) -> "UriPolicy":
        """
        Args:
            folder_uri: the folder of the source itself: the root by default, unless the job has an `image_root`.

        Raises:
            ValueError: a root that is no place for files.
        """
        for root in spec.image_roots or ():
            try:
                open_store(root)
            except StorageError as error:
                raise ValueError(f"source.image_roots: {error}; source.allow_http allows images on the web") from error
        default = folder_uri if spec.image_root is None else spec.image_root
        roots = (default,) if spec.image_roots is None else spec.image_roots
        if spec.image_roots is None and uri_scheme(default) in ("http", "https"):
            roots = ()  # the web has no roots, see `http`
        return cls(roots=tuple(map(canonical_uri, roots)), http=HttpStore() if spec.allow_http else None)

    def get(self, uri: str, *, max_bytes: int, patience: Patience | None = None) -> bytes:
        """
        Args:
            uri: absolute.
            patience: with S3, as in `open_store`. Web servers are many and owe us nothing: each URL is asked for
                `WEB_ATTEMPTS` times, or once without any patience.

        Raises:
            StorageError: FORBIDDEN outside of the roots; UNSUPPORTED_URI for a web address that is not allowed; else
                as `Store.get`.
        """
        scheme = uri_scheme(uri)
        if scheme in ("http", "https"):
            return _from_web(self._http(uri), uri, max_bytes, 1 if patience and not patience.store_s else WEB_ATTEMPTS)
        if scheme in ("", "file"):
            uri = self._real_path(uri)
        elif scheme == "s3":
            self._check_key(uri)
        return open_store(uri, patience=patience).get(uri, max_bytes=max_bytes)

    def _http(self, uri: str) -> HttpStore:
        if self.http is None:
            raise StorageError(
                ErrorKind.UNSUPPORTED_URI,
                f"{shown_uri(uri)}: images on the web are not fetched unless the job says source.allow_http: true",
            )
        return self.http

    def _real_path(self, uri: str) -> str:
        """The path without links, which is the one to read: a link that changes after this check changes nothing."""
        path = _real_path(uri)
        for root in self.roots:
            if uri_scheme(root) != "s3" and path.startswith(_real_path(root).rstrip("/") + "/"):
                return path
        raise self._outside(uri, path)

    def _check_key(self, uri: str) -> None:
        bucket, key = split_s3(uri)
        # To S3 these are letters, but a gateway over folders may walk them.
        if {".", ".."} & set(re.split(r"[/\\]", unquote(key))):
            raise self._outside(uri, uri)
        for root in self.roots:
            if uri_scheme(root) != "s3":
                continue
            root_bucket, folder = split_s3(root)
            if bucket == root_bucket and key.startswith(f"{folder}/" if folder else ""):
                return
        raise self._outside(uri, uri)

    def _outside(self, uri: str, found: str) -> StorageError:
        shown = shown_uri(uri)
        where = shown if found == uri else f"{shown} (really {found})"
        roots = ", ".join(self.roots) or "none"
        return StorageError(
            ErrorKind.FORBIDDEN,
            f"{where}: is outside of source.image_roots ({roots}), below which a table may name images; list another "
            "folder there if whoever wrote the table may choose from it",
        )


def _from_web(http: HttpStore, uri: str, max_bytes: int, num_attempts: int) -> bytes:
    for attempt in range(num_attempts - 1):
        try:
            return http.get(uri, max_bytes=max_bytes)
        except StorageError as error:
            if error.kind.permanent:
                raise
        # Spread out, so that the threads of many actors do not come back to a busy server all at once.
        time.sleep(_WEB_BACKOFF_S * 2**attempt * random.uniform(0.5, 1.5))
    return http.get(uri, max_bytes=max_bytes)


def _real_path(uri: str) -> str:
    try:
        # Two slashes at the start are kept by normalisation, and mean one.
        return "/" + os.path.realpath(local_path(uri)).lstrip("/")
    except ValueError as error:  # a NUL or a lone surrogate
        raise StorageError(ErrorKind.UNSUPPORTED_URI, f"{uri!r}: is not a possible path ({error})") from error
