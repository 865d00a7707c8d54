"""Rows of the tables, some at a time -> what is to be said of all of them, and which samples to show.

What is held does not grow with the rows: counts, and of each stratum (a recipe, an error kind of it, a flag of it)
the samples with the lowest ids. Ids are hashes, so these are a random draw, and the same one each time.
"""

import math
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from itertools import zip_longest
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.tables import QUARANTINE_TABLE

TEXT_COLUMN = {
    "captions": "caption",
    "grounded_captions": "caption",
    "ocr": "text",
    "qa": "answer",
    "visual_prompts": "answer",
    "grounding": "text",
    "code": "code",
    "scores": "text",
}
QUARANTINED_PER_KIND = 50
MIN_LOGPROB, LOGPROB_BINS = -5.0, 20
"""Histogram of mean log-probabilities from there to 0; what is lower is in the first bin."""


_OF_RECIPE, _OF_ERROR, _OF_FLAG = range(3)
_Stratum = tuple[int, str, str]
"""What kind of stratum; the error kind or flag, "" of a recipe's labels; the recipe."""


@dataclass(kw_only=True)
class Facts:
    """`num_samples`: how many samples of a stratum to hold."""

    num_samples: int
    num_rows: Counter[str] = field(default_factory=Counter)
    tile_grids: Counter[str] = field(default_factory=Counter)
    text_lengths: Counter[int] = field(default_factory=Counter)
    """By n, texts of 2^n - 1 up to 2^(n+1) - 2 characters."""
    logprobs: np.ndarray = field(default_factory=lambda: np.zeros(LOGPROB_BINS, np.int64))
    flags: Counter[str] = field(default_factory=Counter)
    finish_reasons: Counter[str] = field(default_factory=Counter)
    quarantined: Counter[str] = field(default_factory=Counter)
    """(sample, recipe) pairs by error kind."""
    quarantined_rows: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: defaultdict(list))
    """Of each kind the first ones."""
    _strata: dict[_Stratum, list[str]] = field(default_factory=dict)
    """Of each the ids to choose from, ascending; what comes first in their order is chosen from first."""

    def add(self, table: str, rows: pa.Table) -> None:
        if not rows.num_rows:
            return
        self.num_rows[table] += rows.num_rows
        if table == QUARANTINE_TABLE:
            self._add_quarantined(rows)
        else:
            self._add_labels(rows, TEXT_COLUMN[table])

    def chosen(self) -> list[str]:
        """Ids of samples: one of every stratum in turn, until there are enough."""
        in_turn = [id_ for ids in zip_longest(*(self._strata[key] for key in sorted(self._strata))) for id_ in ids]
        return list(dict.fromkeys(id_ for id_ in in_turn if id_ is not None))[: self.num_samples]

    @property
    def num_strata(self) -> int:
        return len(self._strata)

    def _add_labels(self, rows: pa.Table, text_column: str) -> None:
        grids = zip(rows["tiles_wide"].to_pylist(), rows["tiles_high"].to_pylist(), strict=True)
        self.tile_grids.update(f"{wide}x{high}" for wide, high in grids)
        lengths = pc.fill_null(pc.utf8_length(rows[text_column]), 0).to_pylist()
        self.text_lengths.update(int(math.log2(length + 1)) for length in lengths)
        logprobs = rows["mean_logprob"].drop_null().to_numpy()
        logprobs = np.clip(logprobs[np.isfinite(logprobs)], MIN_LOGPROB, 0)
        self.logprobs += np.histogram(logprobs, LOGPROB_BINS, (MIN_LOGPROB, 0))[0]
        self.finish_reasons.update(rows["finish_reason"].to_pylist())
        of_row = rows["flags"].combine_chunks()
        flags = pc.list_flatten(of_row)
        self.flags.update(flags.to_pylist())
        self._add_to_strata(_OF_RECIPE, pa.repeat("", rows.num_rows), rows)
        self._add_to_strata(_OF_FLAG, flags, rows.take(pc.list_parent_indices(of_row)))

    def _add_quarantined(self, rows: pa.Table) -> None:
        self.quarantined.update(rows["error_kind"].to_pylist())
        for kind in pc.unique(rows["error_kind"]).to_pylist():
            held = self.quarantined_rows[kind]
            held += rows.filter(pc.field("error_kind") == kind).slice(0, QUARANTINED_PER_KIND - len(held)).to_pylist()
        self._add_to_strata(_OF_ERROR, rows["error_kind"], rows)

    def _add_to_strata(self, what: int, names: pa.Array, rows: pa.Table) -> None:
        """Args: names: (rows,) see `_Stratum`."""
        columns = {"name": names, "recipe": rows["recipe"], "sample_id": rows["sample_id"]}
        found = pa.table(columns).group_by(["name", "recipe"]).aggregate([("sample_id", "distinct")])
        for name, recipe, ids in zip(*(found[of].to_pylist() for of in found.column_names), strict=True):
            held = self._strata.get((what, name, recipe), ())
            self._strata[what, name, recipe] = sorted({*held, *ids})[: self.num_samples]
