"""The commits of a finalized manifest shard -> one commit; and which shards need no look at their commits any more.

A block of 16 images leaves a commit and a few staged files: a million images leave hundreds of thousands of objects,
which every later run would have to read. Afterwards there is one commit and one staged file per table for each shard.
Old ones are removed only after the new ones are written, commits before the files that they name.
"""

import hashlib
import io
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from pipeline.commits import QUARANTINED, Commit
from pipeline.ledger import RunFolder
from pipeline.output_names import CARD_NAME, FINALIZED_FILE
from pipeline.pending import Wanted
from pipeline.read_ahead import in_order
from pipeline.settled import Settled
from pipeline.storage import join_uri, open_store
from schemas.tables import ALL_TABLES


@dataclass(frozen=True, kw_only=True)
class WholeShard:
    """commit: file name of the shard's only commit; error_kinds: of its pairs in quarantine."""

    commit: str
    error_kinds: tuple[str, ...]


class WholeShardWriter:
    """Puts one commit in the place of all commits of a shard; nothing is written where there is but one already."""

    def __init__(self, folder: RunFolder, shard: str, commit_uris: Sequence[str]) -> None:
        self._folder, self._shard, self._commit_uris = folder, shard, commit_uris
        names = [uri.rpartition("/")[2] for uri in commit_uris]
        self._is_whole = len(names) == 1 and names[0].endswith(".parquet")
        digest = hashlib.sha256("\n".join([shard, *sorted(names)]).encode()).hexdigest()[:32]
        self._name = names[0].removesuffix(".parquet") if self._is_whole else digest
        self._files: dict[str, str] = {}
        self._buffer = io.BytesIO()
        self._writer: pq.ParquetWriter | None = None

    def add(self, rows: pa.Table) -> None:
        """Rows of the table at hand. They exist from `finish` on."""
        if rows.num_rows and not self._is_whole:
            if self._writer is None:
                self._writer = pq.ParquetWriter(self._buffer, rows.schema, compression="zstd")
            self._writer.write_table(rows)

    def finish_table(self, table: str) -> None:
        """All its rows were added."""
        if self._writer is not None:
            self._writer.close()
            open_store(self._folder.uri).put(self._folder.staged_uri(table, self._name), self._buffer.getvalue())
            self._files[table] = self._name
            self._buffer, self._writer = io.BytesIO(), None

    def finish(self, settled: Settled, recipe_digests: Mapping[str, str]) -> WholeShard:
        """Removes the old commits, which `settled` was made from, and what they named."""
        if not self._is_whole:
            commit = Commit(files=self._files, recipe_digests=recipe_digests, outcomes=settled.outcomes)
            self._folder.put_whole_commit(self._shard, self._name, commit)
            self._delete(self._commit_uris)
            self._delete(
                [self._folder.staged_uri(table, name) for files in settled.files for table, name in files.items()]
            )
        kinds = pc.unique(settled.outcomes.filter(pc.field("status") == QUARANTINED)["error_kind"]).to_pylist()
        return WholeShard(commit=f"{self._name}.parquet", error_kinds=tuple(sorted(kinds)))

    def _delete(self, uris: Sequence[str]) -> None:
        for _ in in_order(open_store(self._folder.uri).delete, uris):
            pass


@dataclass(frozen=True, kw_only=True)
class Finalized:
    """What the last `finalize` left: enough to see by names and sizes alone that nothing has changed since."""

    recipe_digests: Mapping[str, str]
    shards: Mapping[str, WholeShard]
    parts: Mapping[str, int]
    """Of the dataset, see `dataset_files`."""
    sha256: Mapping[str, str]
    """Of the parts of the tables, by their names below the dataset."""
    absent: Mapping[str, str] = field(default_factory=dict)
    """By shard, the hash of the list of its images that the source did not have (see `pipeline.absent`)."""
    version: str | None = None
    """Name of the dataset; None where no versions are kept."""
    versions: tuple[str, ...] = ()
    """Those that are kept, the newest last."""
    unnamed: tuple[str, ...] = ()
    """Staged files that no commit named (see `pipeline.leftovers`)."""

    def write(self, folder: RunFolder) -> None:
        folder.put_json(FINALIZED_FILE, asdict(self))

    @classmethod
    def read(cls, folder: RunFolder) -> "Finalized | None":
        record = folder.get_json(FINALIZED_FILE)
        if record is None:
            return None
        shards = {
            shard: WholeShard(commit=whole["commit"], error_kinds=tuple(whole["error_kinds"]))
            for shard, whole in record["shards"].items()
        }
        return cls(
            recipe_digests=record["recipe_digests"],
            shards=shards,
            parts=record["parts"],
            sha256=record["sha256"],
            absent=record["absent"],
            version=record["version"],
            versions=tuple(record["versions"]),
            unnamed=tuple(record["unnamed"]),
        )

    def unsettled_shards(
        self, folder: RunFolder, shards: Sequence[str], wanted: Wanted, absent: Mapping[str, str]
    ) -> list[str]:
        """Of these shards, those that may have pending pairs, or other images than the source has now: all but the ones
        whose only commit is known to be whole, found by one listing.

        Args: absent: as `self.absent`, now.
        """
        if dict(self.recipe_digests) != dict(wanted.recipe_digests):
            return list(shards)
        changed = self._changed(folder)
        return [
            shard
            for shard in shards
            if shard in changed
            or shard not in self.shards
            or self.absent.get(shard) != absent.get(shard)
            or not wanted.retried_kinds.isdisjoint(self.shards[shard].error_kinds)
        ]

    def _changed(self, folder: RunFolder) -> set[str]:
        """Shards that have another commit than the one that is known, or none."""
        found: defaultdict[str, int] = defaultdict(int)
        changed: set[str] = set()
        prefix = f"{folder.all_commits_uri}/"
        for info in open_store(folder.uri).list_or_empty(folder.all_commits_uri):
            stem, _, name = info.uri.removeprefix(prefix).partition("/")
            shard = f"{stem}.parquet"
            found[shard] += 1
            if shard not in self.shards or self.shards[shard].commit != name:
                changed.add(shard)
        return changed | {shard for shard in self.shards if found[shard] != 1}

    def dataset_is_at(self, dataset_uri: str) -> bool:
        return dataset_files(dataset_uri) == dict(self.parts)


def dataset_files(dataset_uri: str) -> dict[str, int]:
    """What readers of a dataset find: bytes by name below it."""
    store, prefix = open_store(dataset_uri), f"{dataset_uri.rstrip('/')}/"
    found = [info for table in ALL_TABLES for info in store.list_or_empty(join_uri(dataset_uri, table))]
    card_uri = join_uri(dataset_uri, CARD_NAME)
    if store.exists(card_uri):
        found.append(store.head(card_uri))
    return {info.uri.removeprefix(prefix): info.num_bytes for info in found}
