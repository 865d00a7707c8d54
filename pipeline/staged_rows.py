"""The staged files of one table in one manifest shard -> its rows in the order of the source, some at a time.

A file holds the rows of one block, and the images of a block are mostly neighbours: files are read in the order of
their first images, and rows are given away as soon as no file to come can have earlier ones. What is held are the rows
that wait, a few thousand in all but odd cases.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.ledger import RunFolder
from pipeline.parquet_members import open_encoded
from pipeline.read_ahead import in_order
from pipeline.settled import Settled, codes_of
from pipeline.storage import open_store
from schemas.tables import ITEM, staged_schema

FILES_PER_PIECE = 512
ROWS_PER_PIECE = 16_384
BYTES_PER_PIECE = 32 * 1024 * 1024


class _Piece(NamedTuple):
    rows: pa.Table
    commit: int
    """Which one of `Settled.files` named the file."""
    next_place: int
    """All later pieces have images from this place on."""


class StagedRows:
    """Those rows of one table that count."""

    def __init__(
        self, folder: RunFolder, table: str, *, images: pa.Array, settled: Settled, carried_schema: pa.Schema | None
    ) -> None:
        """images: (N,) the ids of the shard's images, in its order; all of `settled` are among them."""
        self._folder, self._table = folder, table
        self._images, self._settled = images, settled
        places = pc.index_in(settled.outcomes["sample_id"], value_set=images).to_numpy()
        self._places = places.astype(np.int64)
        """(P,) the place of each pair's image."""
        self._schema = _without_views(staged_schema(table, carried_schema))

    def in_order(self) -> Iterator[tuple[pa.Table, np.ndarray]]:
        """Rows in the order of the source, then of the recipe's items; and of each row the pair that it belongs to, by
        its place in `settled`. All rows of an image come together.

        Raises:
            StorageError: a staged file cannot be read.
        """
        rows, commits = [self._schema.empty_table()], [np.zeros(0, np.int64)]
        num_rows = num_bytes = 0
        for piece in self._pieces():
            rows.append(piece.rows)
            commits.append(np.full(piece.rows.num_rows, piece.commit))
            num_rows, num_bytes = num_rows + piece.rows.num_rows, num_bytes + piece.rows.nbytes
            if len(rows) > FILES_PER_PIECE or num_rows >= ROWS_PER_PIECE or num_bytes >= BYTES_PER_PIECE:
                ready, pairs, rest, of_rest = self._split(rows, commits, piece.next_place)
                rows, commits, num_rows, num_bytes = [rest], [of_rest], 0, 0
                yield ready, pairs
        ready, pairs, *_ = self._split(rows, commits, len(self._images))
        yield ready, pairs

    def _split(
        self, rows: list[pa.Table], commits: list[np.ndarray], next_place: int
    ) -> tuple[pa.Table, np.ndarray, pa.Table, np.ndarray]:
        """Rows of images before the place, sorted, with their pairs; and the others that count, with their commits."""
        # In one chunk: picking rows out of hundreds of them takes several times as long.
        waiting, of_waiting = pa.concat_tables(rows).combine_chunks(), np.concatenate(commits)
        recipes = waiting["recipe"].combine_chunks()
        pairs = self._settled.find_pairs(waiting["sample_id"].combine_chunks(), recipes)
        counts = (pairs >= 0) & (np.append(self._settled.commits, -1)[pairs] == of_waiting)
        places = np.append(self._places, -1)[pairs]
        ready, rest = np.flatnonzero(counts & (places < next_place)), np.flatnonzero(counts & (places >= next_place))
        recipe_codes, _ = codes_of(recipes)
        items = waiting[ITEM.name].to_numpy()
        ready = ready[np.lexsort((items[ready], recipe_codes[ready], places[ready]))]
        return _taken(waiting, ready), pairs[ready], _taken(waiting, rest), of_waiting[rest]

    def _pieces(self) -> Iterator[_Piece]:
        """Of the files with rows that count, in the order of their first images."""
        files, end = self._settled.files, len(self._images)
        first_places = np.full(len(files), end)
        np.minimum.at(first_places, self._settled.commits, self._places)
        in_turn = [
            int(commit)
            for commit in np.argsort(first_places, kind="stable")
            if self._table in files[commit] and first_places[commit] < end
        ]
        uris = [self._folder.staged_uri(self._table, files[commit][self._table]) for commit in in_turn]
        encoded_files = in_order(open_store(self._folder.uri).get, uris)
        for turn, (uri, encoded) in enumerate(zip(uris, encoded_files, strict=True)):
            next_place = int(first_places[in_turn[turn + 1]]) if turn + 1 < len(uris) else end
            for rows, place in self._pieces_of(uri, encoded):
                yield _Piece(rows=rows, commit=in_turn[turn], next_place=min(next_place, place))

    def _pieces_of(self, uri: str, encoded: bytes) -> Iterator[tuple[pa.Table, int]]:
        """With the first place of what is left of the file. A large file that is in order comes in batches."""
        with open_encoded(uri, encoded) as file:
            places = np.zeros(0, np.int64)
            if file.metadata.num_rows > ROWS_PER_PIECE:
                found = pc.index_in(file.read(["sample_id"], use_threads=False)["sample_id"], value_set=self._images)
                places = found.fill_null(-1).to_numpy()
            if not len(places) or (np.diff(places) < 0).any():
                yield self._with_schema(file.read(use_threads=False)), len(self._images)
                return
            num_read = 0
            for batch in file.iter_batches(ROWS_PER_PIECE, use_threads=False):
                num_read += batch.num_rows
                next_place = int(places[num_read]) if num_read < len(places) else len(self._images)
                yield self._with_schema(pa.Table.from_batches([batch])), next_place

    def _with_schema(self, rows: pa.Table) -> pa.Table:
        """A cast that changes nothing would still take a quarter of the time of reading a small file."""
        return rows if rows.schema == self._schema else rows.cast(self._schema)


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
