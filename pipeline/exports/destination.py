"""Files of an export -> the folder they lie in, local or on S3, which says by a file of its own whether it is whole.

That file, `_export.json`, is written first with `"whole": false` and replaced last. A folder that holds what no export
wrote is refused; what an earlier export has left there is removed.
"""

import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import IO, Any, BinaryIO, cast

from pipeline.read_ahead import in_order
from pipeline.storage import canonical_uri, join_uri, open_store
from schemas.tables import LABEL_TABLES

MARKER = "_export.json"
LEFT_OUT = "_left_out.jsonl"

_OURS = re.compile(
    rf"{re.escape(MARKER)}|{re.escape(LEFT_OUT)}|README\.md|llava\.json|messages\.jsonl|instances\.json|shard-\d{{6}}\.tar"
    rf"|images/[0-9a-f]{{2}}/[0-9a-f]{{32}}[a-z0-9-]*\.[a-z0-9]+|({'|'.join(LABEL_TABLES)})/part-\d{{5}}\.parquet"
)


class Destination:
    """Names are relative to it."""

    def __init__(self, uri: str, *, to: str, reserved_uris: Sequence[str]) -> None:
        """Writes nothing yet.

        Args:
            reserved_uris: files and folders of the output itself.

        Raises:
            ValueError: the folder is one of those, or holds what no export wrote.
        """
        self.uri = canonical_uri(uri)
        self._to = to
        self._store = open_store(self.uri)
        self.num_bytes = 0
        """Written so far."""
        for reserved in reserved_uris:
            if self.uri == reserved or self.uri.startswith(f"{reserved}/"):
                raise ValueError(f"{self.uri} is where the output keeps its own files: export to another folder")
        self._refuse_foreign_files()

    def begin(self) -> None:
        """From here on there is no whole export: one that was there is removed."""
        self._mark({"whole": False, "to": self._to})
        earlier = (join_uri(self.uri, name) for name in self._names() if name != MARKER)
        for _ in in_order(self._store.delete, earlier):
            pass

    def put(self, name: str, data: bytes) -> None:
        self._store.put(self._uri_of(name), data)
        self.num_bytes += len(data)

    def put_all(self, files: Sequence[tuple[str, bytes]]) -> None:
        """Several at a time."""
        for _ in in_order(lambda file: self._store.put(self._uri_of(file[0]), file[1]), files, items_per_task=1):
            pass
        self.num_bytes += sum(len(data) for _, data in files)

    def put_file(self, name: str, file: IO[bytes]) -> None:
        """The whole of an open file, wherever it stands."""
        self.num_bytes += file.seek(0, io.SEEK_END)
        self._store.put_file(self._uri_of(name), cast(BinaryIO, file))

    def finish(self, facts: Mapping[str, Any]) -> None:
        self._mark({"whole": True, **facts})

    def _uri_of(self, name: str) -> str:
        assert _OURS.fullmatch(name), f"{name} would be foreign to the next export"
        return join_uri(self.uri, name)

    def _mark(self, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, ensure_ascii=False, indent=1) + "\n"
        self._store.put(join_uri(self.uri, MARKER), text.encode())

    def _names(self) -> Iterator[str]:
        prefix = f"{self.uri.rstrip('/')}/"
        return (info.uri.removeprefix(prefix) for info in self._store.list_or_empty(self.uri))

    def _refuse_foreign_files(self) -> None:
        is_ours = self._store.exists(join_uri(self.uri, MARKER))
        for name in self._names():
            if not is_ours or not _OURS.fullmatch(name):
                raise ValueError(f"{self.uri} already holds {name}, which no export wrote: choose another --out")
