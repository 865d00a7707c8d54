"""Commits -> the dataset: Parquet parts sorted in the order of the source, and the accounts of every input.

Works shard by shard, so that memory is bounded by the labels of one manifest shard. Does not know how labels came
about. The order of the rows depends on the source alone, never on scheduling. The many commits of a shard become one on
the way (see `pipeline.whole_shards`), so that the next run has one file to read for each shard.
"""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import OUTCOMES, Commit, Outcome, Pair, settled
from pipeline.ledger import RunFolder
from pipeline.manifest import read_shard
from pipeline.parquet_members import open_table
from pipeline.parts import PartWriter
from pipeline.whole_shards import WholeShard, make_whole
from schemas.tables import ITEM, QUARANTINE_TABLE, staged_schema, table_schema

BYTES_PER_PIECE = 64 * 1024 * 1024


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
    """Images by the kinds of their errors; one image counts once per kind."""
    num_quarantined_images: int = 0
    """Images of which at least one recipe is in quarantine."""
    whole_shards: dict[str, WholeShard] = field(default_factory=dict)
    """By manifest shard, the one commit that it has now."""

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
        ReconciliationError: an input without an outcome, an outcome of none of the inputs, or one whose rows are not
            all there; nothing is replaced then.
    """
    accounts = Accounts(outcomes={recipe: Counter(dict.fromkeys(OUTCOMES, 0)) for recipe in recipe_digests})
    writers = {table: PartWriter(folder, table, carried_schema) for table in (*tables, QUARANTINE_TABLE)}
    for shard in shards:
        commits = {uri: folder.commit_at(uri) for uri in folder.commit_uris(shard)}
        outcomes, files = settled(commits.values(), recipe_digests), _files(commits.values())
        order = _account(folder, shard, outcomes, recipe_digests, accounts)
        rows = {
            table: _shard_rows(folder, table, files.get(table, []), order, outcomes, carried_schema)
            for table in writers
        }
        _check_num_rows(shard, outcomes, Counter(pair for table in rows.values() for pair in _pairs(table)))
        for table, writer in writers.items():
            writer.add(rows[table].select(table_schema(table, carried_schema).names))
            accounts.num_rows[table] += rows[table].num_rows
        _count_quarantined(rows[QUARANTINE_TABLE], accounts)
        accounts.whole_shards[shard] = make_whole(
            folder,
            shard,
            commits,
            outcomes=[outcome for outcome, _ in outcomes.values()],
            rows={table: of_table.cast(staged_schema(table, carried_schema)) for table, of_table in rows.items()},
            recipe_digests=recipe_digests,
        )
    for writer in writers.values():
        writer.finish()
    return accounts


def _count_quarantined(rows: pa.Table, accounts: Accounts) -> None:
    kinds = zip(rows["sample_id"].to_pylist(), rows["error_kind"].to_pylist(), strict=True)
    accounts.quarantined_by_kind.update(kind for _, kind in set(kinds))
    accounts.num_quarantined_images += pc.count_distinct(rows["sample_id"]).as_py()


def _files(commits: Iterable[Commit]) -> dict[str, list[str]]:
    """Per table the staged files to read."""
    files: dict[str, list[str]] = {}
    for commit in commits:
        for table, name in commit.files.items():
            files.setdefault(table, []).append(name)
    return files


def _account(
    folder: RunFolder,
    shard: str,
    outcomes: Mapping[Pair, tuple[Outcome, str]],
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
    outcomes: Mapping[Pair, tuple[Outcome, str]],
    carried_schema: pa.Schema | None,
) -> pa.Table:
    """All rows of one table in one shard, in the order of the source, then of the recipe's items."""
    schema = _without_views(staged_schema(table, carried_schema))
    parts = []
    for name in files:
        with open_table(folder.staged_uri(table, name)) as staged:
            part = staged.read().cast(schema)
        kept = [pair in outcomes and outcomes[pair][1] == name for pair in _pairs(part)]
        parts.append(part.filter(pa.array(kept, type=pa.bool_())))
    rows = pa.concat_tables([schema.empty_table(), *parts])
    # A table of its own: the source may carry along a column of any name.
    keys = pa.table(
        {
            "place": pa.array([order[sample_id] for sample_id in rows["sample_id"].to_pylist()], type=pa.int64()),
            "recipe": rows["recipe"],
            "item": rows[ITEM.name],
        }
    )
    positions = pc.sort_indices(keys, sort_keys=[(name, "ascending") for name in keys.column_names])
    return _taken(rows, positions.to_numpy())


def _taken(rows: pa.Table, positions: np.ndarray) -> pa.Table:
    """The rows at these positions. A piece at a time: Arrow takes from no column with over 2 GiB of strings."""
    num_pieces = rows.nbytes // BYTES_PER_PIECE + 1
    pieces = [rows.slice(0, 0)]
    for wanted in np.array_split(positions, num_pieces):
        mask = np.zeros(rows.num_rows, dtype=bool)
        mask[wanted] = True
        # Filtering keeps the order they had; the second step brings the few that are left into the wanted one.
        pieces.append(rows.filter(pa.array(mask)).take(pa.array(np.searchsorted(np.sort(wanted), wanted))))
    return pa.concat_tables(pieces)


def _without_views(schema: pa.Schema) -> pa.Schema:
    """Arrow cannot filter columns of views; they become views again in the part."""
    plain = {pa.string_view(): pa.large_string(), pa.binary_view(): pa.large_binary()}
    return pa.schema([field.with_type(plain.get(field.type, field.type)) for field in schema])


def _pairs(rows: pa.Table) -> Iterator[Pair]:
    yield from zip(rows["sample_id"].to_pylist(), rows["recipe"].to_pylist(), strict=True)


def _check_num_rows(shard: str, outcomes: Mapping[Pair, tuple[Outcome, str]], num_rows: Mapping[Pair, int]) -> None:
    for pair, (outcome, name) in outcomes.items():
        if num_rows.get(pair, 0) != outcome.num_rows:
            raise ReconciliationError(
                f"{shard}: commit {name} has {outcome.num_rows} rows for image {pair[0]}, recipe {pair[1]}, but its "
                f"staged files have {num_rows.get(pair, 0)}: remove that commit and run the job again"
            )
