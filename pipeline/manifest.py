"""The rows of a source -> Parquet shards of the manifest, and back to the pipeline's rows.

It does not know which of the rows are done already, nor what a recipe does with them.
"""

import hashlib
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet_members import open_table
from pipeline.source import Source, SourceRow
from pipeline.storage import join_uri, open_store
from schemas.rows import ImageRow
from schemas.tables import MANIFEST

_MAX_SHARD_BYTES = 128 << 20
_ROW_OVERHEAD_BYTES = 512
_ROW_GROUP_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `write_manifest` wrote. `shards` are names in its folder, in the order of the source."""

    shards: tuple[str, ...]
    num_images: int
    num_ignored: int
    carried_schema: pa.Schema | None
    sha256: Mapping[str, str]
    """By shard, of the bytes that were written."""


def sample_id(image_uri: str, version: str, member: str) -> str:
    """The identity of one image: 32 hex digits, the same for the same three strings everywhere and always.

    `image_uri` is taken as it stands; sources give canonical ones.
    """
    # JSON, because any plain separator could be part of a key.
    text = json.dumps([image_uri, version, member])
    return hashlib.sha256(text.encode()).hexdigest()[:32]


def write_manifest(
    source: Source, folder_uri: str, *, limit: int | None, rows_per_shard: int = 100_000, first_shard: int = 0
) -> Manifest:
    """Writes every row of the source, in its order, into `shard-00000.parquet` and on; the schema is
    `MANIFEST`.

    Holds one encoded shard at a time; a shard ends early when what its rows carry is large. Until it returns, the
    folder may hold a part of the manifest.

    Args:
        limit: stop after this many images; None for all. `num_ignored` counts the files passed until then.
        first_shard: number of the first shard, where the folder holds earlier ones.

    Raises:
        ValueError: the source is not what it seemed when it was opened.
        StorageError: the source or the folder failed.
    """
    store = open_store(folder_uri)
    sha256: dict[str, str] = {}
    num_images = 0
    rows = itertools.islice(source.rows(), limit)
    for first in rows:
        name = f"shard-{first_shard + len(sha256):05d}.parquet"
        encoded, num_rows = _next_shard(itertools.chain([first], rows), rows_per_shard)
        store.put(join_uri(folder_uri, name), encoded)
        sha256[name] = hashlib.sha256(encoded).hexdigest()
        num_images += num_rows
    return Manifest(
        shards=tuple(sha256),
        num_images=num_images,
        num_ignored=source.num_ignored,
        carried_schema=source.carried_schema,
        sha256=sha256,
    )


def read_shard(uri: str, *, batch_rows: int = 1024, columns: Sequence[str] | None = None) -> Iterator[pa.RecordBatch]:
    """The rows of one shard, in order, in batches of at most `batch_rows`; all columns, or those named."""
    with open_table(uri) as table:
        wanted = None if columns is None else list(columns)
        yield from table.iter_batches(batch_rows, columns=wanted, use_threads=False)


def sample_ids(uri: str) -> pa.Array:
    """Of one shard, in order."""
    batches = [batch.column(0) for batch in read_shard(uri, columns=["sample_id"], batch_rows=_ROW_GROUP_ROWS)]
    return pa.chunked_array(batches, pa.string()).combine_chunks()


def image_rows(batch: pa.RecordBatch, *, manifest_shard: str, recipes: Sequence[tuple[str, ...]]) -> list[ImageRow]:
    """The rows of a manifest batch as they enter the pipeline.

    Args:
        manifest_shard: the name of the shard, which every row keeps.
        recipes: for each row the names of the recipes to run on it.
    """
    return [
        ImageRow(
            sample_id=record["sample_id"],
            image_uri=record["image_uri"],
            version=record["version"],
            member=record["member"],
            manifest_shard=manifest_shard,
            recipes=names,
            questions=tuple(record["questions"]),
            original_answers=tuple(record["original_answers"]),
            queries=tuple(record["queries"]),
            carried=record["carried"],
        )
        for record, names in zip(batch.to_pylist(), recipes, strict=True)
    ]


def _next_shard(rows: Iterator[SourceRow], max_rows: int) -> tuple[bytes, int]:
    """Takes what goes into one shard: (Parquet, number of rows). Holds one row group and what is encoded."""
    buffer = io.BytesIO()
    num_rows = num_bytes = 0
    with pq.ParquetWriter(buffer, MANIFEST, compression="zstd") as writer:
        while num_rows < max_rows and num_bytes < _MAX_SHARD_BYTES:
            group, num_group_bytes = _next_group(rows, min(_ROW_GROUP_ROWS, max_rows - num_rows))
            if not group:
                break
            writer.write_table(_manifest_table(group))
            num_rows, num_bytes = num_rows + len(group), num_bytes + num_group_bytes
    return buffer.getvalue(), num_rows


def _next_group(rows: Iterator[SourceRow], max_rows: int) -> tuple[list[SourceRow], int]:
    group: list[SourceRow] = []
    num_bytes = 0
    while len(group) < max_rows and num_bytes < _MAX_SHARD_BYTES and (row := next(rows, None)) is not None:
        group.append(row)
        num_bytes += len(row.carried) + _ROW_OVERHEAD_BYTES
    return group, num_bytes


def _manifest_table(rows: Sequence[SourceRow]) -> pa.Table:
    columns = {
        "sample_id": [sample_id(row.image_uri, row.version, row.member) for row in rows],
        **{name: [getattr(row, name) for row in rows] for name in MANIFEST.names[1:]},
    }
    return pa.table(columns, schema=MANIFEST)
