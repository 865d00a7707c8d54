"""Rows of the tables, some at a time -> what is to be said of all of them, and which samples to show.

What is held does not grow with the rows: counts, and of each stratum (a recipe with a flag, an error kind) the samples
with the lowest ids. Ids are hashes, so these are a random draw, and the same one each time.
"""

import math
from collections import Counter, defaultdict
from collections.abc import Iterable
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
    _strata: dict[tuple[str, str], list[str]] = field(default_factory=dict)

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

    def _add_labels(self, rows: pa.Table, text_column: str) -> None:
        grids = zip(rows["tiles_wide"].to_pylist(), rows["tiles_high"].to_pylist(), strict=True)
        self.tile_grids.update(f"{wide}x{high}" for wide, high in grids)
        lengths = pc.fill_null(pc.utf8_length(rows[text_column]), 0).to_pylist()
        self.text_lengths.update(int(math.log2(length + 1)) for length in lengths)
        logprobs = rows["mean_logprob"].drop_null().to_numpy()
        logprobs = np.clip(logprobs[np.isfinite(logprobs)], MIN_LOGPROB, 0)
        self.logprobs += np.histogram(logprobs, LOGPROB_BINS, (MIN_LOGPROB, 0))[0]
        self.finish_reasons.update(rows["finish_reason"].to_pylist())
        flags = [tuple(of or ()) for of in rows["flags"].to_pylist()]
        self.flags.update(flag for of in flags for flag in of)
        strata = [(recipe, of[0] if of else "") for recipe, of in zip(rows["recipe"].to_pylist(), flags, strict=True)]
        self._add_to_strata(strata, rows["sample_id"].to_pylist())

    def _add_quarantined(self, rows: pa.Table) -> None:
        for row in rows.to_pylist():
            kind = row["error_kind"]
            self.quarantined[kind] += 1
            if len(self.quarantined_rows[kind]) < QUARANTINED_PER_KIND:
                self.quarantined_rows[kind].append(row)
        self._add_to_strata([("", kind) for kind in rows["error_kind"].to_pylist()], rows["sample_id"].to_pylist())

    def _add_to_strata(self, strata: Iterable[tuple[str, str]], sample_ids: Iterable[str]) -> None:
        found: dict[tuple[str, str], set[str]] = defaultdict(set)
        for stratum, sample_id in zip(strata, sample_ids, strict=True):
            found[stratum].add(sample_id)
        for stratum, ids in found.items():
            self._strata[stratum] = sorted(ids.union(self._strata.get(stratum, ())))[: self.num_samples]
