"""Commits -> the dataset: Parquet parts sorted in the order of the source, and the accounts of every input.

Works shard by shard, so that memory is bounded by the labels of one table in one manifest shard. Does not know how
labels came about. The order of the rows depends on the source alone, never on scheduling. The many commits of a shard
become one on the way (see `pipeline.whole_shards`), so that the next run has one file to read for each shard.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import OUTCOMES
from pipeline.ledger import RunFolder
from pipeline.manifest import sample_ids
from pipeline.parquet_members import decode_table
from pipeline.parts import PartWriter
from pipeline.read_ahead import in_order
from pipeline.settled import Settled, codes_of, settle
from pipeline.storage import open_store
from pipeline.whole_shards import WholeShard, WholeShardWriter
from schemas.tables import ITEM, QUARANTINE_TABLE, staged_schema, table_schema

BYTES_PER_PIECE = 64 * 1024 * 1024
FILES_PER_PIECE = 256


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
    sha256: dict[str, str] = field(default_factory=dict)
    """Of the parts that were written, by their names below the output."""

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
        commit_uris = folder.commit_uris(shard)
        whole = WholeShardWriter(folder, shard, commit_uris)
        settled = settle(folder.commits_at(commit_uris), recipe_digests)
        images = sample_ids(folder.shard_uri(shard))
        _account(shard, images, settled, recipe_digests, accounts)
        num_rows = np.zeros(settled.outcomes.num_rows, dtype=np.int64)
        for table, writer in writers.items():  # one after another: all of them at once would not fit into memory
            rows, pairs = _shard_rows(folder, table, images, settled, carried_schema)
            num_rows += np.bincount(pairs, minlength=len(num_rows))
            accounts.num_rows[table] += rows.num_rows
            if table == QUARANTINE_TABLE:
                _count_quarantined(rows, accounts)
            writer.add(rows.select(table_schema(table, carried_schema).names))
            whole.add(table, rows.cast(staged_schema(table, carried_schema)))
        _check_num_rows(shard, settled, num_rows)
        accounts.whole_shards[shard] = whole.finish(settled, recipe_digests)
    for writer in writers.values():
        accounts.sha256.update(writer.finish())
    return accounts


def _account(
    shard: str, images: pa.Array, settled: Settled, recipe_digests: Mapping[str, str], accounts: Accounts
) -> None:
    """Adds one shard to the accounts."""
    status = settled.outcomes["status"]
    for recipe in recipe_digests:
        found = settled.find(images, recipe)
        for image in np.flatnonzero(found < 0)[:1]:
            raise ReconciliationError(
                f"{shard}: image {images[image]} has no outcome for recipe {recipe}; run the job again to finish it"
            )
        for ended in pc.value_counts(status.take(pa.array(found))).to_pylist():
            accounts.outcomes[recipe][ended["values"]] += ended["counts"]
    known = pc.is_in(settled.outcomes["sample_id"], value_set=images)
    for stranger in settled.outcomes["sample_id"].filter(pc.invert(known))[:1]:
        raise ReconciliationError(f"{shard}: a commit has image {stranger}, which the manifest does not")
    accounts.num_images += len(images)


def _count_quarantined(rows: pa.Table, accounts: Accounts) -> None:
    kinds = rows.group_by(["sample_id", "error_kind"]).aggregate([])["error_kind"]
    accounts.quarantined_by_kind.update({kind["values"]: kind["counts"] for kind in pc.value_counts(kinds).to_pylist()})
    accounts.num_quarantined_images += pc.count_distinct(rows["sample_id"]).as_py()


def _shard_rows(
    folder: RunFolder, table: str, images: pa.Array, settled: Settled, carried_schema: pa.Schema | None
) -> tuple[pa.Table, np.ndarray]:
    """All rows of one table in one shard, in the order of the source, then of the recipe's items; and of each row the
    pair that it belongs to, by its place in `settled`."""
    rows, commits = _staged_rows(folder, table, settled, _without_views(staged_schema(table, carried_schema)))
    names, recipes = rows["sample_id"].combine_chunks(), rows["recipe"].combine_chunks()
    pairs = settled.find_pairs(names, recipes)
    counts = np.flatnonzero((pairs >= 0) & (np.append(settled.commits, -1)[pairs] == commits))
    places = pc.index_in(names, value_set=images).to_numpy(zero_copy_only=False)[counts]
    recipe_codes, _ = codes_of(recipes)
    order = np.lexsort((rows[ITEM.name].to_numpy()[counts], recipe_codes[counts], places))
    return _taken(rows, counts[order]), pairs[counts]


def _staged_rows(folder: RunFolder, table: str, settled: Settled, schema: pa.Schema) -> tuple[pa.Table, np.ndarray]:
    """What all commits of a shard name for a table, in their order; and of each row the commit that named it."""
    commits = [number for number, files in enumerate(settled.files) if table in files]
    uris = [folder.staged_uri(table, settled.files[number][table]) for number in commits]
    pieces, piece = [schema.empty_table()], []
    num_rows: list[int] = []
    for uri, encoded in zip(uris, in_order(open_store(folder.uri).get, uris), strict=True):
        piece.append(decode_table(uri, encoded).cast(schema))
        num_rows.append(piece[-1].num_rows)
        if len(piece) == FILES_PER_PIECE:  # thousands of tables of a few rows take more than their rows do
            pieces.append(pa.concat_tables(piece).combine_chunks())
            piece = []
    return pa.concat_tables([*pieces, *piece]), np.repeat(np.array(commits, dtype=np.int64), num_rows)


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


def _check_num_rows(shard: str, settled: Settled, num_rows: np.ndarray) -> None:
    """Args: num_rows: (pairs,) found in staged files."""
    for place in np.flatnonzero(settled.outcomes["num_rows"].to_numpy() != num_rows)[:1]:
        (outcome,) = settled.outcomes.slice(place, 1).to_pylist()
        name = next(iter(settled.files[settled.commits[place]].values()), "")
        raise ReconciliationError(
            f"{shard}: commit {name} has {outcome['num_rows']} rows for image {outcome['sample_id']}, recipe "
            f"{outcome['recipe']}, but its staged files have {num_rows[place]}: remove that commit and run the job "
            "again"
        )
