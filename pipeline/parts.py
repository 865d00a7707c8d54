"""Rows of one table, in order -> its parts in the dataset: `<output>/<table>/part-NNNNN-of-NNNNN.parquet`.

Does not know what is in the rows, nor where their order comes from.
"""

import io
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.ledger import RunFolder
from pipeline.storage import join_uri, open_store
from schemas.tables import table_schema

ROWS_PER_PART = 500_000
BYTES_PER_PART = 256 * 1024 * 1024
PART_NAME = re.compile(r"part-(?P<index>\d{5})-of-(?P<total>\d{5})\.parquet")


class PartWriter:
    """Collects the rows of one table and writes a part whenever it is full.

    How many parts there are is only known at the end and is part of their names, so parts are kept as encoded bytes
    of at most one table and named when it is complete.
    """

    def __init__(self, folder: RunFolder, table: str, carried_schema: pa.Schema | None) -> None:
        self._folder, self._table = folder, table
        self._schema = table_schema(table, carried_schema)
        self._pending: list[pa.Table] = []
        self._partial_uris: list[str] = []

    def add(self, rows: pa.Table) -> None:
        rows = rows.cast(self._schema)
        self._pending.append(rows)
        for part in self._full_parts():
            self._write(part)

    def finish(self) -> None:
        """Writes the rest, gives all parts their names and removes parts of an earlier finalize."""
        rest = pa.concat_tables([self._schema.empty_table(), *self._pending])
        if rest.num_rows or not self._partial_uris:
            self._write(rest)
        folder_uri = join_uri(self._folder.output_uri, self._table)
        store = open_store(folder_uri)
        total = len(self._partial_uris)
        names = [f"part-{index:05d}-of-{total:05d}.parquet" for index in range(total)]
        for name, partial_uri in zip(names, self._partial_uris, strict=True):
            store.put(join_uri(folder_uri, name), store.get(partial_uri))
        for info in list(store.list_or_empty(folder_uri)):
            name = info.uri.removeprefix(f"{folder_uri}/")
            if name not in names and PART_NAME.fullmatch(name):  # nothing but our own is ever removed
                store.delete(info.uri)
        for partial_uri in self._partial_uris:
            store.delete(partial_uri)

    def _full_parts(self) -> Iterator[pa.Table]:
        while sum(rows.num_rows for rows in self._pending) >= ROWS_PER_PART or (
            sum(rows.nbytes for rows in self._pending) >= BYTES_PER_PART
        ):
            rows = pa.concat_tables(self._pending)
            num_rows = min(ROWS_PER_PART, max(1, rows.num_rows * BYTES_PER_PART // max(1, rows.nbytes)))
            self._pending = [rows.slice(num_rows)] if num_rows < rows.num_rows else []
            yield rows.slice(0, num_rows)

    def _write(self, rows: pa.Table) -> None:
        buffer = io.BytesIO()
        pq.write_table(rows, buffer, compression="zstd", row_group_size=10_000)
        uri = join_uri(self._folder.uri, "parts", self._table, f"{len(self._partial_uris):05d}.parquet")
        open_store(uri).put(uri, buffer.getvalue())
        self._partial_uris.append(uri)
