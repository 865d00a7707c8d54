"""Commits -> the dataset: Parquet parts sorted in the order of the source, and the accounts of every input.

Works shard by shard, and through the rows of a shard some at a time: memory grows neither with the images nor with
their labels. Does not know how labels came about. The order of the rows depends on the source alone, never on
scheduling. The many commits of a shard become one on the way (see `pipeline.whole_shards`), so that the next run has
one file to read for each shard.
"""

from collections import Counter
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.absent import source_states
from pipeline.commits import OUTCOMES, SKIPPED
from pipeline.duplicate_texts import DuplicateTexts
from pipeline.ledger import RunFolder
from pipeline.manifest import sample_ids
from pipeline.parts import PartWriter
from pipeline.seen_texts import RepeatedText
from pipeline.settled import Settled, settle
from pipeline.staged_rows import StagedRows
from pipeline.table_facts import TableFacts
from pipeline.whole_shards import WholeShard, WholeShardWriter
from schemas.tables import PRESENT, QUARANTINE_TABLE, SOURCE_STATE, staged_schema, table_schema


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
    source_states: Counter[str] = field(default_factory=Counter)
    """Images by whether the source still has them (`SOURCE_STATE`)."""
    num_quarantined_images: int = 0
    """Images of which at least one recipe is in quarantine."""
    tables: dict[str, TableFacts] = field(default_factory=dict)
    """Of each label table, what is to be said of its rows."""
    whole_shards: dict[str, WholeShard] = field(default_factory=dict)
    """By manifest shard, the one commit that it has now."""
    sha256: dict[str, str] = field(default_factory=dict)
    """Of the parts that were written, by their names below the dataset."""
    num_duplicate_texts: Counter[str] = field(default_factory=Counter)
    """By recipe, rows whose text an earlier row has."""
    most_repeated: dict[str, tuple[RepeatedText, ...]] = field(default_factory=dict)
    """By recipe, the texts that come most often; none where no text comes twice."""

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
    duplicate_min_chars: Mapping[str, int] | None = None,
    absent_from: Container[str] = (),
    dataset_uri: str | None = None,
) -> Accounts:
    """Writes `<table>/part-NNNNN-of-NNNNN.parquet` from everything committed, and accounts for every input.

    Args:
        tables: label tables to write, also when they are empty; the quarantine table always is.
        recipe_digests: by recipe; commits under other digests are of earlier jobs and left out.
        duplicate_min_chars: by recipe, from how many characters on a text that an earlier row has is flagged; recipes
            that are not named may repeat themselves.
        absent_from: shards of which the source no longer has all images; rows of those are marked.
        dataset_uri: where the tables go, if not into the output itself.

    Raises:
        ReconciliationError: an input without an outcome, an outcome of none of the inputs, or one whose rows are not
            all there; nothing is replaced then.
    """
    accounts = Accounts(outcomes={recipe: Counter(dict.fromkeys(OUTCOMES, 0)) for recipe in recipe_digests})
    accounts.tables = {table: TableFacts(table) for table in tables}
    writers = {
        table: PartWriter(folder, table, carried_schema, dataset_uri=dataset_uri)
        for table in (*tables, QUARANTINE_TABLE)
    }
    duplicates = {table: DuplicateTexts(table, duplicate_min_chars or {}) for table in tables}
    for shard in shards:
        commit_uris = folder.commit_uris(shard)
        whole = WholeShardWriter(folder, shard, commit_uris)
        settled = settle(folder.commits_at(commit_uris), recipe_digests)
        images = sample_ids(folder.shard_uri(shard))
        states = (
            source_states(folder.absent_uri, shard, images)
            if shard in absent_from
            else pa.repeat(pa.scalar(PRESENT), len(images))
        )
        _account(shard, images, states, settled, recipe_digests, accounts)
        num_rows = np.zeros(settled.outcomes.num_rows, dtype=np.int64)
        for table, writer in writers.items():
            staged = StagedRows(folder, table, images=images, settled=settled, carried_schema=carried_schema)
            for rows, pairs in staged.in_order():
                num_rows += np.bincount(pairs, minlength=len(num_rows))
                accounts.num_rows[table] += rows.num_rows
                if table == QUARANTINE_TABLE:
                    _count_quarantined(rows, accounts)
                    written = rows
                else:
                    written = duplicates[table].flagged(rows)
                    accounts.tables[table].add(written)
                of_rows = states.take(pc.index_in(written["sample_id"], value_set=images))
                written = written.append_column(SOURCE_STATE, of_rows)
                writer.add(written.select(table_schema(table, carried_schema).names))
                whole.add(rows.cast(staged_schema(table, carried_schema)))
            whole.finish_table(table)
        _check_num_rows(shard, settled, num_rows)
        accounts.whole_shards[shard] = whole.finish(settled, recipe_digests)
    for writer in writers.values():
        accounts.sha256.update(writer.finish())
    for found in duplicates.values():
        accounts.num_duplicate_texts.update({recipe: seen.num_repeated for recipe, seen in found.seen.items()})
        accounts.most_repeated.update(found.most_repeated())
    return accounts


def _account(
    shard: str,
    images: pa.Array,
    states: pa.Array,
    settled: Settled,
    recipe_digests: Mapping[str, str],
    accounts: Accounts,
) -> None:
    """Adds one shard to the accounts. Of an image that the source lost before it was labelled nothing is left to do."""
    status = settled.outcomes["status"]
    is_present = pc.equal(states, PRESENT).to_numpy(zero_copy_only=False)
    accounts.source_states.update({one["values"]: one["counts"] for one in pc.value_counts(states).to_pylist()})
    for recipe in recipe_digests:
        found = settled.find(images, recipe)
        accounts.outcomes[recipe][SKIPPED] += int(np.count_nonzero((found < 0) & ~is_present))
        for image in np.flatnonzero((found < 0) & is_present)[:1]:
            raise ReconciliationError(
                f"{shard}: image {images[image]} has no outcome for recipe {recipe}; run the job again to finish it"
            )
        for ended in pc.value_counts(status.take(pa.array(found[found >= 0]))).to_pylist():
            accounts.outcomes[recipe][ended["values"]] += ended["counts"]
    known = pc.is_in(settled.outcomes["sample_id"], value_set=images)
    for stranger in settled.outcomes["sample_id"].filter(pc.invert(known))[:1]:
        raise ReconciliationError(f"{shard}: a commit has image {stranger}, which the manifest does not")
    accounts.num_images += len(images)


def _count_quarantined(rows: pa.Table, accounts: Accounts) -> None:
    kinds = rows.group_by(["sample_id", "error_kind"]).aggregate([])["error_kind"]
    accounts.quarantined_by_kind.update({kind["values"]: kind["counts"] for kind in pc.value_counts(kinds).to_pylist()})
    accounts.num_quarantined_images += pc.count_distinct(rows["sample_id"]).as_py()


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
