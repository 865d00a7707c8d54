"""Commits -> the dataset: Parquet parts sorted in the order of the source, a dataset card, and the run's accounts.

Works shard by shard, so that memory is bounded by the labels of one manifest shard. Does not know how labels came
about. The order of the rows depends on the source alone, never on scheduling.
"""

import io
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.ledger import OUTCOMES, Outcome, RunFolder
from pipeline.manifest import read_shard
from pipeline.parquet_members import open_table
from pipeline.storage import join_uri, open_store
from schemas.tables import ITEM, QUARANTINE_TABLE, staged_schema, table_schema

ROWS_PER_PART = 500_000
BYTES_PER_PART = 256 * 1024 * 1024


class ReconciliationError(RuntimeError):
    """Inputs and outcomes do not add up: the dataset was not written."""


@dataclass(kw_only=True)
class Accounts:
    """What became of every input. For each recipe: inputs = labelled + quarantined + skipped."""

    num_images: int = 0
    outcomes: dict[str, Counter[str]] = field(default_factory=dict)
    """By recipe, how many images ended labelled, quarantined or skipped."""
    num_rows: Counter[str] = field(default_factory=Counter)
    """By table."""
    quarantined_by_kind: Counter[str] = field(default_factory=Counter)
    """(image, recipe) pairs in the quarantine table, by error kind."""
    num_quarantined_images: int = 0
    """Images of which at least one recipe is in quarantine."""

    @property
    def quarantined_fraction(self) -> float:
        return self.num_quarantined_images / self.num_images if self.num_images else 0.0


def finalize(
    folder: RunFolder,
    *,
    shards: Sequence[str],
    tables: Sequence[str],
    recipe_digests: Mapping[str, str],
    carried_schema: pa.Schema | None,
) -> Accounts:
    """Writes `<output>/<table>/part-NNNNN-of-NNNNN.parquet` from everything committed, and accounts for every input.

    Args:
        tables: label tables to write, also when they are empty; the quarantine table always is.
        recipe_digests: by recipe; commits under other digests are of earlier jobs and left out.

    Raises:
        ReconciliationError: an input without an outcome, or one with two; nothing is replaced then.
    """
    accounts = Accounts(outcomes={recipe: Counter(dict.fromkeys(OUTCOMES, 0)) for recipe in recipe_digests})
    writers = {table: _PartWriter(folder, table, carried_schema) for table in (*tables, QUARANTINE_TABLE)}
    for shard in shards:
        outcomes, files = _committed(folder, shard, recipe_digests)
        order = _account(folder, shard, outcomes, recipe_digests, accounts)
        for table, writer in writers.items():
            rows = _shard_rows(folder, table, files.get(table, []), order, outcomes, carried_schema)
            writer.add(rows)
            accounts.num_rows[table] += rows.num_rows
            if table == QUARANTINE_TABLE:
                accounts.quarantined_by_kind.update(rows["error_kind"].to_pylist())
                accounts.num_quarantined_images += pc.count_distinct(rows["sample_id"]).as_py()
    for writer in writers.values():
        writer.finish()
    return accounts


def _committed(
    folder: RunFolder, shard: str, recipe_digests: Mapping[str, str]
) -> tuple[dict[tuple[str, str], tuple[Outcome, str]], dict[str, list[str]]]:
    """Per (sample, recipe) its outcome and the commit it is taken from; per table the staged files to read.

    A pair committed twice (a block that Ray ran again) counts once: the first commit by name has it.
    """
    outcomes: dict[tuple[str, str], tuple[Outcome, str]] = {}
    files: dict[str, list[str]] = {}
    for commit in folder.commits(shard):
        name = next(iter(commit.files.values()), "")
        for outcome in commit.outcomes:
            if outcome.recipe_digest == recipe_digests.get(outcome.recipe):
                outcomes.setdefault((outcome.sample_id, outcome.recipe), (outcome, name))
        for table, file in commit.files.items():
            files.setdefault(table, []).append(file)
    return outcomes, files


def _account(
    folder: RunFolder,
    shard: str,
    outcomes: Mapping[tuple[str, str], tuple[Outcome, str]],
    recipe_digests: Mapping[str, str],
    accounts: Accounts,
) -> dict[str, int]:
    """Adds one shard to the accounts; returns each sample's place in it."""
    order: dict[str, int] = {}
    for batch in read_shard(folder.shard_uri(shard)):
        for sample_id in batch.column("sample_id").to_pylist():
            order[sample_id] = len(order)
            for recipe in recipe_digests:
                found = outcomes.get((sample_id, recipe))
                if found is None:
                    raise ReconciliationError(
                        f"{shard}: image {sample_id} has no outcome for recipe {recipe}; run the job again to finish it"
                    )
                accounts.outcomes[recipe][found[0].status] += 1
    unknown = next((pair for pair in outcomes if pair[0] not in order), None)
    if unknown is not None:
        raise ReconciliationError(f"{shard}: a commit has image {unknown[0]}, which the manifest does not")
    accounts.num_images += len(order)
    return order


def _shard_rows(
    folder: RunFolder,
    table: str,
    files: Sequence[str],
    order: Mapping[str, int],
    outcomes: Mapping[tuple[str, str], tuple[Outcome, str]],
    carried_schema: pa.Schema | None,
) -> pa.Table:
    """All rows of one table in one shard, in the order of the source, then of the recipe's items."""
    schema = staged_schema(table, carried_schema)
    parts = []
    for name in files:
        with open_table(folder.staged_uri(table, name)) as staged:
            part = staged.read()
        pairs = zip(part["sample_id"].to_pylist(), part["recipe"].to_pylist(), strict=True)
        kept = [pair in outcomes and outcomes[pair][1] == name for pair in pairs]
        parts.append(part.filter(pa.array(kept, type=pa.bool_())))
    rows = pa.concat_tables([schema.empty_table(), *parts])
    place = pa.array([order[sample_id] for sample_id in rows["sample_id"].to_pylist()], type=pa.int64())
    keys = [("place", "ascending"), ("recipe", "ascending"), (ITEM.name, "ascending")]
    rows = rows.append_column("place", place).sort_by(keys)
    return rows.select(table_schema(table, carried_schema).names)


class _PartWriter:
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
            if info.uri.rsplit("/", 1)[-1] not in names:
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
