"""What is done and what is not, kept beside the dataset: manifest shards, staged files and the commits that name them.

    <output>/_run/run.json                     what this output was made from, and its shards
    <output>/_run/manifest/shard-NNNNN.parquet every input, in the order of the source
    <output>/_run/staged/<table>/<name>.parquet
    <output>/_run/commits/<shard>/<name>.json  the staged files of one block, and the (sample, recipe) pairs in them

Only what a commit names exists. Commits lie under their manifest shard, so that what is pending in a shard is found
from that shard's commits alone, and no list of all ids is ever held.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.manifest import image_rows, read_shard
from pipeline.storage import join_uri, open_store
from schemas.rows import ImageRow
from schemas.tables import ALL_TABLES

CARD_NAME = "README.md"

LABELLED, QUARANTINED, SKIPPED = "labelled", "quarantined", "skipped"
OUTCOMES = (LABELLED, QUARANTINED, SKIPPED)


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How one (image, recipe) ended: labelled with so many rows, quarantined, or skipped (nothing was asked of it)."""

    sample_id: str
    recipe: str
    recipe_digest: str
    status: str
    num_rows: int


@dataclass(frozen=True, kw_only=True)
class Commit:
    """`files`: per table the name of one staged file, where the block had rows for that table."""

    files: Mapping[str, str]
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True)
class RunFolder:
    """Names of everything under `<output>/_run`."""

    output_uri: str

    @property
    def uri(self) -> str:
        return join_uri(self.output_uri, "_run")

    @property
    def manifest_uri(self) -> str:
        return join_uri(self.uri, "manifest")

    def shard_uri(self, shard: str) -> str:
        return join_uri(self.manifest_uri, shard)

    def staged_uri(self, table: str, name: str) -> str:
        return join_uri(self.uri, "staged", table, f"{name}.parquet")

    def commits_uri(self, shard: str) -> str:
        return join_uri(self.uri, "commits", shard.removesuffix(".parquet"))

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
        record = {"files": dict(commit.files), "outcomes": [asdict(outcome) for outcome in commit.outcomes]}
        uri = join_uri(self.commits_uri(shard), f"{name}.json")
        open_store(uri).put(uri, json.dumps(record).encode())

    def commits(self, shard: str) -> Iterator[Commit]:
        """All commits of one shard, in the order of their names."""
        store = open_store(self.uri)
        for info in store.list_or_empty(self.commits_uri(shard)):
            if info.uri.endswith(".json"):
                record = json.loads(store.get(info.uri))
                outcomes = tuple(Outcome(**outcome) for outcome in record["outcomes"])
                yield Commit(files=record["files"], outcomes=outcomes)

    def pending(
        self, shard: str, recipe_digests: Mapping[str, str], *, batch_rows: int = 1024
    ) -> Iterator[list[ImageRow]]:
        """Rows of one shard with the recipes no commit covers yet, in order; rows with none are left out.

        Args:
            recipe_digests: digest by recipe name; a pair committed under another digest is pending again.
        """
        done = {
            (outcome.sample_id, outcome.recipe)
            for commit in self.commits(shard)
            for outcome in commit.outcomes
            if outcome.recipe_digest == recipe_digests.get(outcome.recipe)
        }
        for batch in read_shard(self.shard_uri(shard), batch_rows=batch_rows):
            rows = image_rows(batch, manifest_shard=shard, recipes=())
            yield [row for row in (_with_pending(row, recipe_digests, done) for row in rows) if row.recipes]


def _with_pending(row: ImageRow, recipes: Sequence[str] | Mapping[str, str], done: set[tuple[str, str]]) -> ImageRow:
    pending = tuple(recipe for recipe in recipes if (row.sample_id, recipe) not in done)
    return ImageRow(**{**vars(row), "recipes": pending})
