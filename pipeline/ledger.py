"""What is done and what is not, kept beside the dataset: manifest shards, staged files and the commits that name them.

    <output>/_run/run.json                     what this output was made from, and its shards
    <output>/_run/lease/NNNNNN.json            who runs on it now, or ran last
    <output>/_run/manifest/shard-NNNNN.parquet every input, in the order of the source
    <output>/_run/absent/shard-NNNNN.parquet   which of them the source no longer has
    <output>/_run/staged/<table>/<name>.parquet
    <output>/_run/commits/<shard>/<name>.json  the staged files of one block, and how each (sample, recipe) in it ended
    <output>/_run/commits/<shard>/<name>.parquet  the same for the whole shard, once it was finalized

Only what a commit names exists. Commits lie under their manifest shard, so that what is pending in a shard is found
from that shard's commits alone, and no list of all ids is ever held.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline import output_names as names
from pipeline.absent import source_states
from pipeline.commits import Commit
from pipeline.manifest import image_rows, read_shard, sample_ids
from pipeline.pending import PendingPairs, Wanted, pending_pairs
from pipeline.read_ahead import in_order
from pipeline.settled import settle
from pipeline.storage import join_uri, open_store
from schemas.rows import ImageRow
from schemas.tables import ALL_TABLES, PRESENT


@dataclass(frozen=True)
class RunFolder:
    """Names of everything under `<output>/_run`, and its reading and writing."""

    output_uri: str

    @property
    def uri(self) -> str:
        return join_uri(self.output_uri, names.RUN_NAME)

    @property
    def manifest_uri(self) -> str:
        return join_uri(self.uri, names.MANIFEST_NAME)

    @property
    def absent_uri(self) -> str:
        return join_uri(self.uri, names.ABSENT_NAME)

    @property
    def lease_uri(self) -> str:
        return join_uri(self.uri, names.LEASE_NAME)

    @property
    def in_hand_uri(self) -> str:
        return join_uri(self.uri, names.IN_HAND_NAME)

    def shard_uri(self, shard: str) -> str:
        return join_uri(self.manifest_uri, shard)

    def staged_uri(self, table: str, name: str) -> str:
        return join_uri(self.all_staged_uri, table, f"{name}.parquet")

    @property
    def all_staged_uri(self) -> str:
        return join_uri(self.uri, names.STAGED_NAME)

    @property
    def parts_uri(self) -> str:
        """Parts of tables in the making; what a finished run leaves there is of no use."""
        return join_uri(self.uri, names.PARTS_NAME)

    def recipe_uri(self, file: str) -> str:
        return join_uri(self.uri, names.RECIPES_NAME, file)

    @property
    def all_commits_uri(self) -> str:
        return join_uri(self.uri, names.COMMITS_NAME)

    def commits_uri(self, shard: str) -> str:
        return join_uri(self.all_commits_uri, shard.removesuffix(".parquet"))

    @property
    def written_uris(self) -> tuple[str, ...]:
        """What a run writes: files, and folders with all that is in them. Never inputs, whatever the source is."""
        return (*self.reserved_uris, join_uri(self.output_uri, names.EXPORTS_NAME))

    @property
    def reserved_uris(self) -> tuple[str, ...]:
        """The same without what is made of a finished dataset."""
        reserved = (names.RUN_NAME, names.CARD_NAME, *ALL_TABLES, names.VERSIONS_NAME, names.LATEST_NAME)
        return tuple(join_uri(self.output_uri, name) for name in reserved)

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
        return self.commits_at(self.commit_uris(shard))

    def commits_at(self, uris: Sequence[str]) -> Iterator[Commit]:
        for uri, encoded in zip(uris, in_order(open_store(self.uri).get, uris), strict=True):
            yield Commit.from_parquet(encoded) if uri.endswith(".parquet") else Commit.from_json(encoded)

    def pending(self, shard: str, wanted: Wanted, *, batch_rows: int = 1024) -> Iterator[list[ImageRow]]:
        """Rows of one shard with the recipes that are still wanted, in order; rows with none are left out."""
        pairs, first = self._pending_pairs(shard, wanted), 0
        if shard in wanted.max_images_of:
            # Chosen from what was pending when the run began: a listing that is run again must choose the same ones.
            of_run = self._pending_pairs(shard, wanted, before_this_run=True).images
            pairs = pairs.only(of_run[: wanted.max_images_of[shard]])
        for batch in read_shard(self.shard_uri(shard), batch_rows=batch_rows):
            of_batch = pairs.slice(first, batch.num_rows)
            first += batch.num_rows
            places = of_batch.images
            if len(places):
                rows = image_rows(
                    batch.take(pa.array(places)), manifest_shard=shard, recipes=of_batch.recipes_of(places)
                )
                yield of_batch.with_attempts(rows, places)

    def has_pending(self, shard: str, wanted: Wanted) -> bool:
        """Whether `pending` gives anything; of the manifest it reads the ids alone."""
        return self.num_pending(shard, wanted) > 0

    def num_pending(self, shard: str, wanted: Wanted) -> int:
        """Images of the shard of which a recipe is pending."""
        return len(self._pending_pairs(shard, wanted).images)

    def num_images_of_run(self, shard: str, wanted: Wanted) -> int:
        """How many images of the shard were pending when the run began, whatever it has done since."""
        return len(self._pending_pairs(shard, wanted, before_this_run=True).images)

    def _pending_pairs(self, shard: str, wanted: Wanted, *, before_this_run: bool = False) -> PendingPairs:
        settled = settle(self.commits(shard), wanted.recipe_digests)
        images = sample_ids(self.shard_uri(shard))
        pairs = pending_pairs(images, settled, wanted, before_this_run=before_this_run)
        if shard in wanted.absent_from:
            return pairs.only(np.flatnonzero(self.is_present(shard, images)))
        return pairs

    def is_present(self, shard: str, images: pa.Array) -> np.ndarray:
        """(N,) whether the source still has each image of a shard, of which it lacks some."""
        states = source_states(self.absent_uri, shard, images)
        return pc.equal(states, PRESENT).to_numpy(zero_copy_only=False)
