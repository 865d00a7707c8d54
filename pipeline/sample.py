"""An inspected job -> how many samples a run of it would label, and some of them drawn at random.

Reads what a run would list; writes nothing.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

from pipeline.manifest import sample_id
from pipeline.new_rows import NewRows
from pipeline.output_names import RUN_FILE
from pipeline.pending import Wanted
from pipeline.run_listing import absences, listed_shards
from pipeline.source import SourceRow
from pipeline.whole_shards import Finalized
from pipeline.work import InspectedJob
from schemas.rows import ImageRow

NO_SHARD = "not-listed-yet"
_AFTER_ALL_RUNS = (1 << 31) - 1


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """Images are counted as in a run's summary: samples, each of any number of pictures."""

    num_images: int
    """Of the source, those that earlier runs on the output have listed included."""
    num_new_images: int
    """Those that no earlier run has listed."""
    num_to_label: int
    """Of which anything is pending: new ones, and of earlier ones those that lack a recipe or failed for a reason that
    may have passed."""
    num_ignored_files: int
    rows: tuple[ImageRow, ...]
    """Of those to label, in the order of the source; each with its pending recipes."""


def draw_rows(inspected: InspectedJob, *, max_rows: int, seed: int) -> Drawn:
    """Every row has the same chance, and the same seed draws the same rows. Holds no more rows than are asked for.

    Raises:
        ValueError: the source is not what it seemed when it was opened.
    """
    earlier = inspected.folder.get_json(RUN_FILE)
    shards = listed_shards(earlier) if earlier else []
    reservoir = _Reservoir(max_rows, seed)
    for row in _pending_rows(inspected, shards):
        reservoir.offer(row)
    num_pending = reservoir.num_offered
    by_run = [[inspected.folder.shard_uri(shard) for shard in of] for of in (earlier or {}).get("shards_by_run", [])]
    source = NewRows(inspected.source, by_run)
    recipes = tuple(inspected.recipe_digests)
    for source_row in source.rows():
        reservoir.offer(_row_of(source_row, recipes))
    num_new = reservoir.num_offered - num_pending
    return Drawn(
        num_images=num_new + (earlier["num_images"] if earlier else 0),
        num_new_images=num_new,
        num_to_label=reservoir.num_offered,
        num_ignored_files=source.num_ignored,
        rows=reservoir.rows(),
    )


class _Reservoir:
    """Of a stream of unknown length so many rows, each as likely as any other."""

    def __init__(self, max_rows: int, seed: int) -> None:
        self._max_rows, self._random = max_rows, random.Random(seed)
        self._kept: list[tuple[int, ImageRow]] = []
        self.num_offered = 0

    def offer(self, row: ImageRow) -> None:
        numbered = self.num_offered, row
        if len(self._kept) < self._max_rows:
            self._kept.append(numbered)
        elif (place := self._random.randrange(self.num_offered + 1)) < self._max_rows:
            self._kept[place] = numbered
        self.num_offered += 1

    def rows(self) -> tuple[ImageRow, ...]:
        return tuple(row for _, row in sorted(self._kept, key=lambda numbered: numbered[0]))


def _pending_rows(inspected: InspectedJob, shards: list[str]) -> Iterator[ImageRow]:
    folder = inspected.folder
    absent = {shard: of_shard.sha256 for shard, of_shard in absences(folder.get_json(RUN_FILE) or {}).items()}
    wanted = Wanted(recipe_digests=inspected.recipe_digests, run=_AFTER_ALL_RUNS, absent_from=frozenset(absent))
    last = Finalized.read(folder)
    for shard in shards if last is None else last.unsettled_shards(folder, tuple(shards), wanted, absent):
        for rows in folder.pending(shard, wanted):
            yield from rows


def _row_of(row: SourceRow, recipes: tuple[str, ...]) -> ImageRow:
    """As it would come out of the manifest."""
    return ImageRow(
        sample_id=sample_id(row),
        images=row.images,
        place=row.place,
        manifest_shard=NO_SHARD,
        recipes=recipes,
        questions=row.questions,
        original_answers=row.original_answers,
        queries=row.queries,
        turns=row.turns,
        original_text=row.original_text,
        marks=row.marks,
        error=row.error,
        carried=row.carried,
    )
