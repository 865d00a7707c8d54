"""An output, finished or running -> those rows of its tables that count, some at a time.

The one place of the report that knows where rows lie: in the staged files that commits name, which a finished run
keeps, one for each manifest shard. They come in no order.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.ledger import RunFolder
from pipeline.manifest import image_rows, read_shard
from pipeline.output_names import RUN_FILE, SUMMARY_FILE
from pipeline.parquet_members import open_encoded
from pipeline.read_ahead import in_order
from pipeline.recorded_job import job_of
from pipeline.run_listing import listed_shards
from pipeline.settled import Settled, settle
from pipeline.storage import canonical_uri, open_store
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
            summary=folder.get_json(SUMMARY_FILE),
        )

    def settled(self, shard: str) -> Settled:
        return settle(self.folder.commits(shard), self.recipe_digests)

    def rows(
        self, shard: str, settled: Settled, *, sample_ids: pa.Array | None = None
    ) -> Iterator[tuple[str, pa.Table]]:
        """(table, rows) of one shard, without the columns that the source carried along.

        Args:
            sample_ids: leaves out the rows of all other samples; files that have none of theirs are not read.
        """
        if sample_ids is not None:
            settled = _of_samples(settled, sample_ids)
        of_commits = dict(_by_commit(settled))
        for table in ALL_TABLES:
            held: list[pa.Table] = []
            num_held = 0
            for rows in self._counting_rows(table, of_commits):
                held.append(rows)
                num_held += rows.num_rows
                if num_held >= BATCH_ROWS:
                    yield table, pa.concat_tables(held).combine_chunks()
                    held, num_held = [], 0
            if num_held:
                yield table, pa.concat_tables(held).combine_chunks()

    def _counting_rows(self, table: str, of_commits: Mapping[int, Settled]) -> Iterator[pa.Table]:
        """Before a run is finalized a few of each commit."""
        named = {commit: of.files[commit][table] for commit, of in of_commits.items() if table in of.files[commit]}
        uris = [self.folder.staged_uri(table, name) for name in named.values()]
        encoded_files = in_order(open_store(self.folder.uri).get, uris)
        for commit, uri, encoded in zip(named, uris, encoded_files, strict=True):
            with open_encoded(uri, encoded) as file:
                for rows in _batches(file, table):
                    ids, recipes = (rows[name].combine_chunks() for name in ("sample_id", "recipe"))
                    yield rows.filter(pa.array(of_commits[commit].find_pairs(ids, recipes) >= 0))

    def samples(self, shard: str, sample_ids: pa.Array) -> Iterator[ImageRow]:
        """Those of the shard that are among the ids, in the order of the source."""
        for batch in read_shard(self.folder.shard_uri(shard), batch_rows=BATCH_ROWS):
            chosen = batch.filter(pc.is_in(batch.column("sample_id"), value_set=sample_ids))
            yield from image_rows(chosen, manifest_shard=shard, recipes=[()] * chosen.num_rows)


def _batches(file: pq.ParquetFile, table: str) -> Iterator[pa.Table]:
    own = dict.fromkeys([*table_schema(table).names, ITEM.name])
    written = set(file.schema_arrow.names)
    columns = [name for name in own if name in written]
    for batch in file.iter_batches(BATCH_ROWS, columns=columns, use_threads=False):
        yield pa.Table.from_batches([batch])


def _of_samples(settled: Settled, sample_ids: pa.Array) -> Settled:
    is_of_them = pc.is_in(settled.outcomes["sample_id"], value_set=sample_ids).combine_chunks()
    commits = settled.commits[is_of_them.to_numpy(zero_copy_only=False)]
    return replace(settled, outcomes=settled.outcomes.filter(is_of_them), commits=commits)


def _by_commit(settled: Settled) -> Iterator[tuple[int, Settled]]:
    """By commit, the outcomes that came with it and count: among all of a shard's a few rows are not found quickly."""
    order = np.argsort(settled.commits, kind="stable")
    outcomes, commits = settled.outcomes.take(pa.array(order)).combine_chunks(), settled.commits[order]
    numbers, starts = np.unique(commits, return_index=True)
    for commit, start, end in zip(numbers, starts, np.append(starts, len(commits))[1:], strict=True):
        yield int(commit), replace(settled, outcomes=outcomes.slice(start, end - start), commits=commits[start:end])
