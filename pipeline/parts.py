"""Rows of one table, in order -> its parts in the dataset: `<dataset>/<table>/part-NNNNN-of-NNNNN.parquet`.

Does not know what is in the rows, nor where their order comes from.
"""

import hashlib
import tempfile
from collections.abc import Mapping

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger import RunFolder
from pipeline.storage import join_uri, open_store
from pipeline.table_parts import TableParts, part_name
from schemas.tables import table_schema

ROWS_PER_PART = 500_000
BYTES_PER_PART = 256 * 1024 * 1024
ROWS_PER_GROUP = 10_000
BYTES_PER_GROUP = 32 * 1024 * 1024


class PartWriter:
    """Writes the rows of one table into parts, each until it is full. Holds the rows of one row group; the part at hand
    lies in a temporary file of this machine.

    How many parts there are is only known at the end and is part of their names, so parts get their names when the
    table is complete.
    """

    def __init__(
        self, folder: RunFolder, table: str, carried_schema: pa.Schema | None, *, dataset_uri: str | None = None
    ) -> None:
        """dataset_uri: by default the output itself."""
        self._folder, self._table = folder, table
        self._dataset_uri = dataset_uri or folder.output_uri
        self._schema = table_schema(table, carried_schema)
        self._part: _Part | None = None
        self._partial_uris: list[str] = []
        self._sha256: list[str] = []

    def add(self, rows: pa.Table) -> None:
        rows = rows.cast(self._schema)
        while rows.num_rows:
            part = self._part = self._part or _Part(self._schema)
            room = part.room(rows)
            if room:
                part.add(rows.slice(0, room))
                rows = rows.slice(room)
            else:
                self._write()

    def finish(self) -> Mapping[str, str]:
        """Writes the rest, gives all parts their names and removes parts of an earlier finalize.

        Returns: the SHA-256 of each part, by its name below the dataset.
        """
        if not self._partial_uris:
            self._part = self._part or _Part(self._schema)
        if self._part is not None:
            self._write()
        folder_uri = join_uri(self._dataset_uri, self._table)
        store = open_store(folder_uri)
        total = len(self._partial_uris)
        names = [part_name(index, total) for index in range(total)]
        for name, partial_uri in zip(names, self._partial_uris, strict=True):
            store.put(join_uri(folder_uri, name), store.get(partial_uri))
        for uri in TableParts.at(self._dataset_uri, self._table).uris:  # nothing but our own is ever removed
            if uri.removeprefix(f"{folder_uri}/") not in names:
                store.delete(uri)
        for partial_uri in self._partial_uris:
            store.delete(partial_uri)
        return {f"{self._table}/{name}": sha256 for name, sha256 in zip(names, self._sha256, strict=True)}

    def _write(self) -> None:
        assert self._part is not None
        encoded, self._part = self._part.encoded(), None
        uri = join_uri(self._folder.parts_uri, self._table, f"{len(self._partial_uris):05d}.parquet")
        open_store(uri).put(uri, encoded)
        self._partial_uris.append(uri)
        self._sha256.append(hashlib.sha256(encoded).hexdigest())


class _Part:
    """One Parquet file in the making."""

    def __init__(self, schema: pa.Schema) -> None:
        self._schema, self._file = schema, tempfile.TemporaryFile()  # noqa: SIM115 - closed by `encoded`
        self._writer = pq.ParquetWriter(self._file, schema, compression="zstd")
        self._group: list[pa.Table] = []
        self._num_rows = self._num_bytes = self._num_group_rows = self._num_group_bytes = 0

    def room(self, rows: pa.Table) -> int:
        """How many of these rows to add next; 0 if the part is full. A part holds one row at least."""
        num_rows = min(ROWS_PER_PART - self._num_rows, ROWS_PER_GROUP - self._num_group_rows, rows.num_rows)
        row_bytes = max(1, rows.slice(0, num_rows).nbytes // max(1, num_rows))
        of_part = max((BYTES_PER_PART - self._num_bytes) // row_bytes, 0 if self._num_rows else 1)
        return min(num_rows, of_part, max(1, BYTES_PER_GROUP // row_bytes))

    def add(self, rows: pa.Table) -> None:
        self._group.append(rows)
        self._num_rows, self._num_group_rows = self._num_rows + rows.num_rows, self._num_group_rows + rows.num_rows
        self._num_bytes, self._num_group_bytes = self._num_bytes + rows.nbytes, self._num_group_bytes + rows.nbytes
        if self._num_group_rows == ROWS_PER_GROUP or self._num_group_bytes >= BYTES_PER_GROUP:
            self._write_group()

    def encoded(self) -> bytes:
        self._write_group()
        self._writer.close()
        with self._file:
            self._file.seek(0)
            return self._file.read()

    def _write_group(self) -> None:
        rows = pa.concat_tables([self._schema.empty_table(), *self._group])
        if rows.num_rows or not self._num_rows:
            self._writer.write_table(rows, row_group_size=max(1, rows.num_rows))
        self._group, self._num_group_rows, self._num_group_bytes = [], 0, 0
