"""The rows of a source -> Parquet shards of the manifest, and back to the pipeline's rows.

It does not know which of the rows are done already, nor what a recipe does with them.
"""

import hashlib
import io
import itertools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.parquet_members import open_table
from pipeline.source import Source, SourceRow
from pipeline.storage import join_uri, open_store
from schemas.errors import ErrorKind, RowError
from schemas.rows import ImageRow, Mark, RowImage, Turn
from schemas.tables import MANIFEST

_MAX_SHARD_BYTES = 128 << 20
_ROW_OVERHEAD_BYTES = 512
_ROW_GROUP_ROWS = 8192
_AS_THEY_ARE = ("image_uri", "place", "questions", "original_answers", "queries", "original_text", "carried")


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """What `write_manifest` wrote. `shards` are names in its folder, in the order of the source."""

    shards: tuple[str, ...]
    num_images: int
    num_ignored: int
    carried_schema: pa.Schema | None
    sha256: Mapping[str, str]
    """By shard, of the bytes that were written."""


def sample_id(row: SourceRow) -> str:
    """The identity of one sample: 32 hex digits, the same for the same names everywhere and always.

    An image of its own is what its URI, its version and the place in its container say. A sample with a version of its
    own, with several images or with none is also what its place says. URIs are taken as they stand; sources give
    canonical ones.
    """
    names: list[object]
    if len(row.images) == 1 and not row.version:
        image = row.images[0]
        names = [image.uri, image.version, image.member or row.place]
    else:
        names = [row.place, row.version, [[image.uri, image.version, image.member] for image in row.images]]
    # JSON, because any plain separator could be part of a key.
    return hashlib.sha256(json.dumps(names).encode()).hexdigest()[:32]


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
            images=tuple(RowImage(**image) for image in record["images"]),
            place=record["place"],
            manifest_shard=manifest_shard,
            recipes=names,
            questions=tuple(record["questions"]),
            original_answers=tuple(record["original_answers"]),
            queries=tuple(record["queries"]),
            turns=tuple(Turn(**{**turn, "images": tuple(turn["images"])}) for turn in record["turns"]),
            original_text=record["original_text"],
            marks=tuple(_mark_of(mark) for mark in record["marks"]),
            error=_error_of(record["error"]),
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
        num_bytes += _num_bytes(row)
    return group, num_bytes


def _manifest_table(rows: Sequence[SourceRow]) -> pa.Table:
    columns = {
        **{name: [getattr(row, name) for row in rows] for name in MANIFEST.names if name in _AS_THEY_ARE},
        "sample_id": [sample_id(row) for row in rows],
        "images": [
            [{"uri": image.uri, "version": image.version, "member": image.member} for image in row.images]
            for row in rows
        ],
        "turns": [[asdict(turn) for turn in row.turns] for row in rows],
        "marks": [[_mark_record(mark) for mark in row.marks] for row in rows],
        "error": [row.error and {"kind": str(row.error.kind), "message": row.error.message} for row in rows],
    }
    return pa.table(columns, schema=MANIFEST)


def _num_bytes(row: SourceRow) -> int:
    texts = (row.original_text or "", *row.questions, *row.queries, *(turn.text for turn in row.turns))
    answers = sum(len(answer or "") for answer in row.original_answers)
    return _ROW_OVERHEAD_BYTES + len(row.carried) + sum(map(len, texts)) + answers


def _mark_record(mark: Mark) -> dict[str, object]:
    return {"kind": mark.kind, "points": [{"x": x, "y": y} for x, y in mark.points], "color": mark.color}


def _mark_of(record: Mapping[str, Any]) -> Mark:
    points = tuple((point["x"], point["y"]) for point in record["points"])
    return Mark(kind=record["kind"], points=points, color=record["color"])


def _error_of(record: Mapping[str, str] | None) -> RowError | None:
    return RowError(kind=ErrorKind(record["kind"]), message=record["message"]) if record is not None else None
