"""The commits of one manifest shard -> the one outcome of every (image, recipe) that counts, as columns.

Labels count before quarantine, the earliest labels (a later run made them again for nothing), and of several failures
the latest. A shard has hundreds of thousands of pairs: none of them is ever a Python object here.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.commits import OUTCOME_SCHEMA, QUARANTINED, Commit

_COMMITS_PER_PIECE = 512
_BEFORE_ALL_FAILURES = 1 << 32


@dataclass(frozen=True, kw_only=True)
class Settled:
    """Of one manifest shard, by its P pairs of an image and a recipe."""

    outcomes: pa.Table
    """(P,) with `OUTCOME_SCHEMA`; no pair occurs twice."""
    commits: np.ndarray
    """(P,) which of `files` each outcome came with."""
    files: tuple[Mapping[str, str], ...]
    """By commit, the names of its staged files by table; also of commits of which no outcome counts."""

    def find(self, sample_ids: pa.Array, recipe: str) -> np.ndarray:
        """(images,) for each image the row of `outcomes` with how the recipe ended for it, or -1."""
        rows = np.flatnonzero(pc.equal(self.outcomes["recipe"], recipe).to_numpy())
        known_ids = self.outcomes["sample_id"].take(pa.array(rows)).combine_chunks()
        places = pc.index_in(sample_ids, value_set=known_ids).fill_null(-1).to_numpy(zero_copy_only=False)
        return np.append(rows, -1)[places]

    def find_pairs(self, sample_ids: pa.Array, recipes: pa.Array) -> np.ndarray:
        """(pairs,) as `find`, for rows that each have a recipe of their own."""
        found = np.full(len(sample_ids), -1)
        for recipe in pc.unique(recipes).to_pylist():
            rows = np.flatnonzero(pc.equal(recipes, recipe).to_numpy(zero_copy_only=False))
            found[rows] = self.find(sample_ids.take(pa.array(rows)), recipe)
        return found


def settle(commits: Iterable[Commit], recipe_digests: Mapping[str, str]) -> Settled:
    """Which outcomes count.

    Args:
        commits: of one shard, in the order of their names, which decides between two that count alike (a block that
            Ray ran again).
        recipe_digests: by recipe; what was committed under another digest does not count.
    """
    files: list[Mapping[str, str]] = []
    num_outcomes: list[int] = []
    pieces, piece = [OUTCOME_SCHEMA.empty_table()], []
    for commit in commits:
        of_commit = _under(commit, recipe_digests)
        files.append(commit.files)
        num_outcomes.append(of_commit.num_rows)
        piece.append(of_commit)
        if len(piece) == _COMMITS_PER_PIECE:  # thousands of tables of 64 rows take more than their rows do
            pieces.append(pa.concat_tables(piece).combine_chunks())
            piece = []
    outcomes = pa.concat_tables([*pieces, *piece])
    numbers = np.repeat(np.arange(len(files)), num_outcomes)
    counting = _counting(outcomes)
    if len(counting) < outcomes.num_rows:
        outcomes, numbers = outcomes.take(pa.array(counting)), numbers[counting]
    return Settled(outcomes=outcomes, commits=numbers, files=tuple(files))


def codes_of(values: pa.Array | pa.ChunkedArray) -> tuple[np.ndarray, list[str]]:
    """A column of few distinct strings -> (rows,) the place of each in the sorted list of them."""
    encoded = pc.dictionary_encode(values)
    encoded = encoded.combine_chunks() if isinstance(encoded, pa.ChunkedArray) else encoded
    found = encoded.dictionary.to_pylist()
    names = sorted(found)
    rank = np.array([names.index(name) for name in found], dtype=np.int64)
    return rank[encoded.indices.to_numpy(zero_copy_only=False)] if names else np.zeros(0, np.int64), names


def _under(commit: Commit, recipe_digests: Mapping[str, str]) -> pa.Table:
    wanted = [recipe for recipe, digest in commit.recipe_digests.items() if recipe_digests.get(recipe) == digest]
    if len(wanted) == len(commit.recipe_digests):
        return commit.outcomes
    return commit.outcomes.filter(pc.is_in(commit.outcomes["recipe"], value_set=pa.array(wanted, pa.string())))


def _counting(outcomes: pa.Table) -> np.ndarray:
    """The rows that count, ascending."""
    images = pc.dictionary_encode(outcomes["sample_id"]).combine_chunks().indices.to_numpy(zero_copy_only=False)
    recipes, names = codes_of(outcomes["recipe"])
    pairs = images.astype(np.int64) * max(1, len(names)) + recipes
    if len(np.unique(pairs)) == len(pairs):
        return np.arange(len(pairs))
    run = outcomes["run"].to_numpy().astype(np.int64)
    failed = pc.equal(outcomes["status"], QUARANTINED).to_numpy()
    # Sorting is stable: of two that count alike, the first stays the first.
    order = np.lexsort((-np.where(failed, run, _BEFORE_ALL_FAILURES - run), pairs))
    is_first = np.append(True, np.diff(pairs[order]) != 0)
    return np.sort(order[is_first])
