"""The rows of one table, some at a time -> what its dataset card says: flags, lengths, and a few samples.

Held are counts and five rows, however many rows there are. Which five follows from the samples' ids alone.
"""

import json
from collections import Counter
from collections.abc import Mapping
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from schemas.tables import OWN

NUM_SAMPLES = 5
MAX_SAMPLE_CHARS = 400
TEXT_EDGES = (0, 1, 10, 50, 100, 200, 500, 1000, 2000)
COUNT_EDGES = (0, 1, 2, 3, 5, 10, 20)
_MEASURED = {
    "captions": "caption",
    "grounded_captions": "caption",
    "ocr": "text",
    "qa": "answer",
    "visual_prompts": "answer",
    "grounding": "boxes",
    "code": "code",
    "scores": "score",
}
"""By table, the column whose length is counted; of scores, the values themselves."""


class TableFacts:
    """Feed `add` with every row once, in whatever pieces; `as_dict` is then what JSON can hold."""

    def __init__(self, table: str) -> None:
        self._table = table
        self._column = _MEASURED[table]
        self._edges = COUNT_EDGES if table in ("grounding", "scores") else TEXT_EDGES
        self.flags: Counter[str] = Counter()
        self.attempts: Counter[int] = Counter()
        self._lengths = np.zeros(len(self._edges), dtype=np.int64)
        self._samples: pa.Table | None = None

    def add(self, rows: pa.Table) -> None:
        if rows.num_rows == 0:
            return
        flags = pc.list_flatten(rows["flags"])
        self.flags.update({one["values"]: one["counts"] for one in pc.value_counts(flags).to_pylist()})
        attempts = pc.value_counts(rows["attempts"]).to_pylist()
        self.attempts.update({one["values"]: one["counts"] for one in attempts})
        bins = np.searchsorted(self._edges, self._measure(rows[self._column]), side="right") - 1
        self._lengths += np.bincount(bins, minlength=len(self._edges))
        self._keep_samples(rows)

    def as_dict(self) -> dict[str, Any]:
        """`lengths`: by the least length that is counted there, characters of text, boxes of a list, or the score."""
        lengths = {str(edge): int(count) for edge, count in zip(self._edges, self._lengths, strict=True) if count}
        samples = [] if self._samples is None else self._samples.to_pylist()
        return {
            "flags": dict(self.flags.most_common()),
            "attempts": {str(attempts): count for attempts, count in sorted(self.attempts.items())},
            "measured": self._column,
            "lengths": lengths,
            "samples": [_shortened(sample) for sample in samples],
        }

    def _measure(self, values: pa.ChunkedArray) -> np.ndarray:
        if self._table == "scores":
            measured = values
        elif pa.types.is_list(values.type):
            measured = pc.list_value_length(values)
        else:
            measured = pc.utf8_length(values)
        return pc.fill_null(measured, 0).to_numpy()

    def _keep_samples(self, rows: pa.Table) -> None:
        """Ids are hashes, so those that sort first are drawn at random, and always the same."""
        names = ["sample_id", "item", "image_uri", "recipe", "flags", *(field.name for field in OWN[self._table])]
        piece = rows.select(list(dict.fromkeys(names)))
        first = pc.select_k_unstable(piece, NUM_SAMPLES, [("sample_id", "ascending"), ("item", "ascending")])
        kept = piece.take(first) if self._samples is None else pa.concat_tables([self._samples, piece.take(first)])
        order = pc.sort_indices(kept, [("sample_id", "ascending"), ("item", "ascending"), ("recipe", "ascending")])
        self._samples = kept.take(order[:NUM_SAMPLES])


def _shortened(sample: Mapping[str, Any]) -> dict[str, Any]:
    """Without what is empty, and with long values cut."""
    shown = {}
    for name, value in sample.items():
        if value in (None, [], "") or name == "item":
            continue
        text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
        cut = text if len(text) <= MAX_SAMPLE_CHARS else f"{text[:MAX_SAMPLE_CHARS]}..."
        shown[name] = cut if isinstance(value, str) or len(text) > MAX_SAMPLE_CHARS else value
    return shown
