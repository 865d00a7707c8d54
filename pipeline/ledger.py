"""What is done and what is not, kept beside the dataset: manifest shards, staged files and the commits that name them.

    <output>/_run/run.json                     what this output was made from, and its shards
    <output>/_run/lease/NNNNNN.json            who runs on it now, or ran last
    <output>/_run/manifest/shard-NNNNN.parquet every input, in the order of the source
    <output>/_run/staged/<table>/<name>.parquet
    <output>/_run/commits/<shard>/<name>.json  the staged files of one block, and how each (sample, recipe) in it ended
    <output>/_run/commits/<shard>/<name>.parquet  the same for the whole shard, once it was finalized

Only what a commit names exists. Commits lie under their manifest shard, so that what is pending in a shard is found
from that shard's commits alone, and no list of all ids is ever held.
"""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from pipeline.commits import QUARANTINED, Commit, Outcome, Pair, settled
from pipeline.manifest import image_rows, read_shard
from pipeline.storage import join_uri, open_store
from schemas.errors import ErrorKind
from schemas.rows import ImageRow
from schemas.tables import ALL_TABLES

CARD_NAME = "README.md"
TRANSIENT_KINDS = frozenset(str(kind) for kind in ErrorKind if not kind.permanent)


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """What a run is to do: these recipes wherever no commit covers them, and once more what failed for these reasons.

    recipe_digests: by recipe; a pair committed under another digest is pending. run: this run's number; what it has
    quarantined itself is not taken again. retried_kinds: of quarantined pairs, `ErrorKind`s to try again.
    """

    recipe_digests: Mapping[str, str]
    run: int = 1
    retried_kinds: frozenset[str] = TRANSIENT_KINDS

    def is_pending(self, outcome: Outcome | None) -> bool:
        """Whether a pair whose settled outcome is this one (None: it has none) is to be labelled."""
        if outcome is None:
            return True
        return outcome.status == QUARANTINED and outcome.run < self.run and outcome.error_kind in self.retried_kinds


@dataclass(frozen=True)
class RunFolder:
    """Names of everything under `<output>/_run`, and its reading and writing."""

    output_uri: str

    @property
    def uri(self) -> str:
        return join_uri(self.output_uri, "_run")

    @property
    def manifest_uri(self) -> str:
        return join_uri(self.uri, "manifest")

    @property
    def lease_uri(self) -> str:
        return join_uri(self.uri, "lease")

    @property
    def in_hand_uri(self) -> str:
        return join_uri(self.uri, "in_hand")

    def shard_uri(self, shard: str) -> str:
        return join_uri(self.manifest_uri, shard)

    def staged_uri(self, table: str, name: str) -> str:
        return join_uri(self.uri, "staged", table, f"{name}.parquet")

    @property
    def all_commits_uri(self) -> str:
        return join_uri(self.uri, "commits")

    def commits_uri(self, shard: str) -> str:
        return join_uri(self.all_commits_uri, shard.removesuffix(".parquet"))

    @property
    def written_uris(self) -> tuple[str, ...]:
        """What a run writes: files, and folders with all that is in them. Never inputs, whatever the source is."""
        return tuple(join_uri(self.output_uri, name) for name in ("_run", CARD_NAME, *ALL_TABLES))

    def put_json(self, name: str, record: Mapping[str, Any]) -> None:
        text = json.dumps(record, indent=1, ensure_ascii=False) + "\n"
        open_store(self.uri).put(join_uri(self.uri, name), text.encode())

    def get_json(self, name: str) -> dict[str, Any] | None:
        """None where there is no such file."""
        store, uri = open_store(self.uri), join_uri(self.uri, name)
        return json.loads(store.get(uri)) if store.exists(uri) else None

    def put_commit(self, shard: str, name: str, commit: Commit) -> None:
        uri = join_uri(self.commits_uri(shard), f"{name}.json")
        open_store(uri).put(uri, commit.to_json())

    def put_whole_commit(self, shard: str, name: str, commit: Commit) -> None:
        """The commit that takes the place of all others of the shard; these are for the caller to remove."""
        uri = join_uri(self.commits_uri(shard), f"{name}.parquet")
        open_store(uri).put(uri, commit.to_parquet())

    def commit_uris(self, shard: str) -> list[str]:
        """Of one shard, in the order of their names."""
        found = open_store(self.uri).list_or_empty(self.commits_uri(shard))
        return [info.uri for info in found if info.uri.endswith((".json", ".parquet"))]

    def commits(self, shard: str) -> Iterator[Commit]:
        """All commits of one shard, in the order of their names."""
        return map(self.commit_at, self.commit_uris(shard))

    def commit_at(self, uri: str) -> Commit:
        encoded = open_store(uri).get(uri)
        return Commit.from_parquet(encoded) if uri.endswith(".parquet") else Commit.from_json(encoded)

    def pending(self, shard: str, wanted: Wanted, *, batch_rows: int = 1024) -> Iterator[list[ImageRow]]:
        """Rows of one shard with the recipes that are still wanted, in order; rows with none are left out."""
        outcomes = settled(self.commits(shard), wanted.recipe_digests)
        done = {pair for pair, (outcome, _) in outcomes.items() if not wanted.is_pending(outcome)}
        tried = {pair: outcome for pair, (outcome, _) in outcomes.items() if pair not in done}
        for batch in read_shard(self.shard_uri(shard), batch_rows=batch_rows):
            recipes = [
                tuple(recipe for recipe in wanted.recipe_digests if (sample, recipe) not in done)
                for sample in batch.column("sample_id").to_pylist()
            ]
            places = [place for place, left in enumerate(recipes) if left]
            if places:
                rows = image_rows(batch.take(places), manifest_shard=shard, recipes=[recipes[i] for i in places])
                yield [_with_attempts(row, tried) for row in rows] if tried else rows


def _with_attempts(row: ImageRow, tried: Mapping[Pair, Outcome]) -> ImageRow:
    attempts = [tried[row.sample_id, recipe].attempts for recipe in row.recipes if (row.sample_id, recipe) in tried]
    return dataclasses.replace(row, num_earlier_attempts=max(attempts)) if attempts else row
