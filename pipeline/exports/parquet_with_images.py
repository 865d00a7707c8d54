"""Samples -> the tables once more, each row with its images in it: `<table>/part-NNNNN.parquet`, and a card.

The schema says in the way of the `datasets` library which column holds images, so that it decodes them.
"""

import json
from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from pipeline.exports.destination import Destination
from pipeline.exports.json_text import Spool
from pipeline.exports.pictures import Picture
from pipeline.exports.samples import Sample
from pipeline.output_names import CARD_NAME

BYTES_PER_PART = 256 * 1024 * 1024
ROWS_PER_GROUP, BYTES_PER_GROUP = 1000, 64 * 1024 * 1024
"""Of images and labels; a reader that wants one row reads its group."""

IMAGE = pa.struct([pa.field("bytes", pa.binary()), pa.field("path", pa.string())])

_DICTIONARY_BYTES = BYTES_PER_GROUP
"""So large that the rows of one image, which lie together, share its bytes within a group."""


class ParquetWithImages:
    """One writer for each table, with a column `image`, or `images` where any sample has several."""

    def __init__(self, destination: Destination, tables: Sequence[str], *, several_images: bool) -> None:
        self._destination, self._several_images = destination, several_images
        self._tables: dict[str, _Table] = {}
        self._order = tables

    def add(self, sample: Sample, pictures: Sequence[Picture]) -> int:
        images = [{"bytes": picture.encoded, "path": picture.name.rpartition("/")[2]} for picture in pictures]
        num_bytes = sum(len(picture.encoded) for picture in pictures)
        value = images if self._several_images else images[0] if images else None
        for table, rows in sample.rows.items():
            if table not in self._tables:
                self._tables[table] = _Table(self._destination, table, self._schema(rows.schema))
            self._tables[table].add(rows, value, num_bytes)
        return 0

    def finish(self) -> None:
        for table in self._tables.values():
            table.finish()
        self._destination.put(CARD_NAME, self._card().encode())

    def _schema(self, schema: pa.Schema) -> pa.Schema:
        name = "images" if self._several_images else "image"
        if name in schema.names:
            raise ValueError(
                f"the source has carried a column {name!r} along, where the images would go: export to another format, "
                "or leave it out with source.carry"
            )
        feature: Any = {"_type": "Image"}
        info = {"info": {"features": {name: [feature] if self._several_images else feature}}}
        image = pa.field(name, pa.list_(IMAGE) if self._several_images else IMAGE)
        metadata = {**(schema.metadata or {}), b"huggingface": json.dumps(info).encode()}
        return schema.insert(0, image).with_metadata(metadata)

    def _card(self) -> str:
        configs = [
            {"config_name": table, "data_files": [{"split": "train", "path": f"{table}/part-*.parquet"}]}
            for table in self._order
            if table in self._tables
        ]
        return f"---\n{yaml.safe_dump({'configs': configs}, sort_keys=False)}---\n\nLabels and their images.\n"


class _Table:
    """Holds one row group; the part at hand lies on this machine's disk."""

    def __init__(self, destination: Destination, table: str, schema: pa.Schema) -> None:
        self._destination, self._table, self._schema = destination, table, schema
        self._num_parts = self._num_part_bytes = self._num_group_bytes = self._num_group_rows = 0
        self._group: list[pa.Table] = []
        self._spool: Spool | None = None
        self._writer: pq.ParquetWriter | None = None

    def add(self, rows: pa.Table, images: Any, num_image_bytes: int) -> None:
        column = pa.array([images], self._schema.field(0).type)
        for row in range(rows.num_rows):
            labels = rows.slice(row, 1)
            self._group.append(labels.add_column(0, self._schema.field(0), column).cast(self._schema))
            self._num_group_rows += 1
            self._num_group_bytes += num_image_bytes + labels.nbytes
            if self._num_group_rows == ROWS_PER_GROUP or self._num_group_bytes >= BYTES_PER_GROUP:
                self._write_group()

    def finish(self) -> None:
        self._write_group()
        if self._writer is not None:
            self._end_part()

    def _write_group(self) -> None:
        if not self._group:
            return
        if self._writer is None:
            self._spool = Spool()
            self._writer = pq.ParquetWriter(
                self._spool.file, self._schema, compression="zstd", dictionary_pagesize_limit=_DICTIONARY_BYTES
            )
        self._writer.write_table(pa.concat_tables(self._group), row_group_size=self._num_group_rows)
        self._num_part_bytes += self._num_group_bytes
        self._group, self._num_group_rows, self._num_group_bytes = [], 0, 0
        if self._num_part_bytes >= BYTES_PER_PART:
            self._end_part()

    def _end_part(self) -> None:
        assert self._writer is not None
        assert self._spool is not None
        self._writer.close()
        with self._spool:
            self._destination.put_file(f"{self._table}/part-{self._num_parts:05d}.parquet", self._spool.file)
        self._num_parts, self._num_part_bytes, self._writer = self._num_parts + 1, 0, None
