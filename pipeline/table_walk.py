"""The parts of one table -> how many rows it has for each image and recipe of one manifest shard after another.

A table has the order of the manifest, so it is read once, beside the manifest, and little of it is held. A row that
stands elsewhere is a problem by itself, and so is one of an image that the manifest does not have.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.image_ids import ImageIds
from pipeline.table_parts import read_parts

WINDOW_ROWS = 16_384
"""Rows in which one that stands too early is told from the end of a shard."""


@dataclass(frozen=True, kw_only=True)
class ShardOfManifest:
    """Its number; of its N images the ids (each once) and, by recipe, the fewest and the most labels they are owed."""

    place: int
    sample_ids: pa.Array
    num_owed_2N: Mapping[str, np.ndarray]

    def owed_only(self, must_N: np.ndarray) -> "ShardOfManifest":
        """The same, with no labels owed to images that need not have any: the source lost them."""
        owed = {
            recipe: np.stack([fewest_N * must_N, most_N]) for recipe, (fewest_N, most_N) in self.num_owed_2N.items()
        }
        return replace(self, num_owed_2N=owed)


class TableWalk:
    """Call `take` for every shard in order, then `finish`."""

    def __init__(
        self,
        table: str,
        part_uris: Sequence[str],
        *,
        recipes: Sequence[str],
        ids: ImageIds,
        on_problem: Callable[[str], None],
    ) -> None:
        """recipes: of the job."""
        self._table, self._ids, self._on_problem = table, ids, on_problem
        self._recipes = sorted(recipes)
        self._batches = read_parts(part_uris, WINDOW_ROWS, columns=["sample_id", "recipe"])
        self._window = pa.table({"sample_id": pa.array([], pa.string()), "recipe": pa.array([], pa.string())})
        self._at_end = False
        self.num_rows = 0
        """Read so far."""

    def take(self, shard: ShardOfManifest) -> Mapping[str, np.ndarray]:
        """(N,) by recipe, the number of rows of each image."""
        counts_NR = np.zeros(len(shard.sample_ids) * len(self._recipes), dtype=np.int64)
        last_key = -1
        while self._fill():
            shards, keys = self._shards_and_keys(shard)
            end = _end_of_shard(shards, shard.place)
            here = np.flatnonzero(shards[:end] == shard.place)
            keys = keys[here]
            counts_NR += np.bincount(keys, minlength=len(counts_NR))
            self._name_misplaced(here[np.diff(keys, prepend=last_key) < 0])
            last_key = keys[-1] if len(keys) else last_key
            self._name_strange(np.flatnonzero(shards[:end] < 0))
            self._name_misplaced(np.flatnonzero((shards[:end] >= 0) & (shards[:end] != shard.place)))
            self._window = self._window.slice(end)
            if self._window.num_rows >= WINDOW_ROWS or self._at_end:
                break
        by_recipe = counts_NR.reshape(-1, len(self._recipes))
        return {recipe: by_recipe[:, code] for code, recipe in enumerate(self._recipes)}

    def finish(self) -> None:
        """Reads what is left after the last shard: nothing, where all is well."""
        while self._fill():
            shards = np.where(self._recipe_codes() < 0, -1, self._ids.shards_of(self._window["sample_id"].chunk(0)))
            self._name_strange(np.flatnonzero(shards < 0))
            self._name_misplaced(np.flatnonzero(shards >= 0))
            self._window = self._window.slice(self._window.num_rows)

    def _fill(self) -> bool:
        """Whether there is anything in the window now."""
        while self._window.num_rows < 2 * WINDOW_ROWS and not self._at_end:
            batch = next(self._batches, None)
            if batch is None:
                self._at_end = True
            else:
                self.num_rows += batch.num_rows
                self._window = pa.concat_tables([self._window, pa.Table.from_batches([batch])]).combine_chunks()
        return self._window.num_rows > 0

    def _shards_and_keys(self, shard: ShardOfManifest) -> tuple[np.ndarray, np.ndarray]:
        """(rows,) of the window: the number of the shard that has the image, -1 for rows that no job has; and a number
        for image and recipe, ascending in a table, if it is this shard."""
        names, codes = self._window["sample_id"].chunk(0), self._recipe_codes()
        places = pc.index_in(names, value_set=shard.sample_ids).fill_null(-1).to_numpy(zero_copy_only=False)
        shards = np.full(len(names), shard.place)
        elsewhere = np.flatnonzero(places < 0)
        shards[elsewhere] = self._ids.shards_of(names.take(pa.array(elsewhere)))
        shards[codes < 0] = -1
        return shards, places.astype(np.int64) * len(self._recipes) + codes

    def _recipe_codes(self) -> np.ndarray:
        codes = pc.index_in(self._window["recipe"].chunk(0), value_set=pa.array(self._recipes))
        return codes.fill_null(-1).to_numpy(zero_copy_only=False)

    def _name_strange(self, rows: np.ndarray) -> None:
        for sample_id, recipe in self._pairs(rows):
            self._on_problem(
                f"image {sample_id}, recipe {recipe}: in a table, but not in the manifest or not in the job"
            )

    def _name_misplaced(self, rows: np.ndarray) -> None:
        for sample_id, recipe in self._pairs(rows):
            self._on_problem(
                f"image {sample_id}, recipe {recipe}: its row in table {self._table} is not where the order of the "
                "manifest has it"
            )

    def _pairs(self, rows: np.ndarray) -> dict[tuple[str, str], None]:
        """Of these rows of the window, each once."""
        chosen = self._window.take(pa.array(rows, pa.int64()))
        return dict.fromkeys(zip(chosen["sample_id"].to_pylist(), chosen["recipe"].to_pylist(), strict=True))


def _end_of_shard(shards: np.ndarray, place: int) -> int:
    """How many rows of the window to be done with before the next shard: where the fewest rows of later shards come
    before the end and the fewest rows of this one after it."""
    num_early = np.cumsum(np.append(0, shards > place))
    num_own = np.cumsum(np.append(0, shards == place))
    num_misplaced = num_early + (num_own[-1] - num_own)
    return len(shards) - int(np.argmin(num_misplaced[::-1]))
