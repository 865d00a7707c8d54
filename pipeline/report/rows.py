"""An output, finished or running -> those rows of its tables that count, some at a time.

The one place of the report that knows where rows lie: in the staged files that commits name, which a finished run
keeps, one for each manifest shard. They come in no order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.ledger import RunFolder
from pipeline.manifest import image_rows, read_shard
from pipeline.parquet_members import open_encoded
from pipeline.read_ahead import in_order
from pipeline.settled import Settled, settle
from pipeline.storage import canonical_uri, open_store
from pipeline.work import RUN_FILE, job_of, listed_shards
from schemas.job import JobSpec
from schemas.rows import ImageRow
from schemas.tables import ALL_TABLES, ITEM, table_schema

BATCH_ROWS = 8192


@dataclass(frozen=True, kw_only=True)
class OpenRun:
    """A run at whatever point it is. `recipe_digests` by recipe."""

    folder: RunFolder
    job: JobSpec
    shards: Sequence[str]
    recipe_digests: Mapping[str, str]
    summary: Mapping[str, Any] | None

    @classmethod
    def at(cls, output: str) -> "OpenRun | None":
        """None where a run has not listed its source yet.

        Raises:
            ValueError: no run is there.
        """
        folder = RunFolder(canonical_uri(output))
        run = folder.get_json(RUN_FILE)
        if run is None:
            return None
        return cls(
            folder=folder,
            job=job_of(output),
            shards=listed_shards(run),
            recipe_digests=run["identity"]["recipes"],
            summary=folder.get_json("summary.json"),
        )

    def settled(self, shard: str) -> Settled:
        return settle(self.folder.commits(shard), self.recipe_digests)

    def rows(
        self, shard: str, settled: Settled, *, sample_ids: pa.Array | None = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """(table, rows) of one shard, without the columns that the source carried along.

        Args:
            sample_ids: leaves out the rows of all other samples.
        """
        for table in ALL_TABLES:
            named = [(commit, files[table]) for commit, files in enumerate(settled.files) if table in files]
            uris = [self.folder.staged_uri(table, name) for _, name in named]
            encoded_files = in_order(open_store(self.folder.uri).get, uris)
            for (commit, _), uri, encoded in zip(named, uris, encoded_files, strict=True):
                with open_encoded(uri, encoded) as file:
                    for rows in _batches(file, table):
                        if sample_ids is not None:
                            rows = rows.filter(pc.is_in(rows["sample_id"], value_set=sample_ids))
                        yield table, rows.filter(_count(rows, commit, settled))

    def samples(self, shard: str, sample_ids: pa.Array) -> Iterator[ImageRow]:
        """Those of the shard that are among the ids, in the order of the source."""
        for batch in read_shard(self.folder.shard_uri(shard), batch_rows=BATCH_ROWS):
            chosen = batch.filter(pc.is_in(batch.column("sample_id"), value_set=sample_ids))
            yield from image_rows(chosen, manifest_shard=shard, recipes=[()] * chosen.num_rows)


def _batches(file: pq.ParquetFile, table: str) -> Iterator[pa.Table]:
    own = dict.fromkeys([*table_schema(table).names, ITEM.name])
    columns = [name for name in own if name in file.schema_arrow.names]
    for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
        yield pa.Table.from_batches([batch])


def _count(rows: pa.Table, commit: int, settled: Settled) -> pa.Array:
    """Whether the outcome of each row's pair came with this commit."""
    if not rows.num_rows:
        return pa.array([], pa.bool_())
    pairs = settled.find_pairs(rows["sample_id"].combine_chunks(), rows["recipe"].combine_chunks())
    return pa.array((pairs >= 0) & (np.append(settled.commits, -1)[pairs] == commit))
