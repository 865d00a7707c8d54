"""Rows of a label table, in the order of the dataset -> the same rows, with a flag on those whose text came before.

Only what is written carries the flag: staged rows stay as they were, because which of two texts is the first may change
with the next run.
"""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa

from pipeline.seen_texts import RepeatedText, SeenTexts, digest_of_text

DUPLICATE_TEXT = "duplicate_text"

_TEXT_COLUMN = {
    "captions": "caption",
    "grounded_captions": "caption",
    "ocr": "text",
    "qa": "answer",
    "visual_prompts": "answer",
    "code": "code",
}
_ASKED_COLUMN = "question"
"""Where a table has it, it is part of the text: the same answer to another question is no duplicate."""


class DuplicateTexts:
    """Of one table. Texts of different recipes are not compared."""

    def __init__(self, table: str, min_chars: Mapping[str, int]) -> None:
        """min_chars: by recipe, the fewest characters of a text that counts; other recipes are not looked at."""
        self._column, self._min_chars = _TEXT_COLUMN.get(table), min_chars
        self.seen: dict[str, SeenTexts] = {}
        """By recipe."""

    def flagged(self, rows: pa.Table) -> pa.Table:
        """The next rows of the table."""
        if self._column not in rows.column_names or not self._min_chars:
            return rows
        recipes = rows["recipe"].to_numpy(zero_copy_only=False)
        repeats = np.zeros(rows.num_rows, dtype=bool)
        for recipe, min_chars in self._min_chars.items():
            places = np.flatnonzero(recipes == recipe)
            if len(places):
                repeats[places] = self._repeats(recipe, rows.take(pa.array(places)), min_chars)
        return _with_flag(rows, repeats) if repeats.any() else rows

    def most_repeated(self) -> dict[str, tuple[RepeatedText, ...]]:
        return {recipe: seen.most_repeated() for recipe, seen in self.seen.items() if seen.num_repeated}

    def _repeats(self, recipe: str, rows: pa.Table, min_chars: int) -> np.ndarray:
        assert self._column is not None
        texts = [text or "" for text in rows[self._column].to_pylist()]
        repeats = np.zeros(len(texts), dtype=bool)
        long = [place for place, text in enumerate(texts) if len(text.strip()) >= min_chars]
        asked = rows[_ASKED_COLUMN].to_pylist() if _ASKED_COLUMN in rows.column_names else [""] * len(texts)
        digests = [digest_of_text(asked[place] or "", texts[place]) for place in long]
        seen = self.seen.setdefault(recipe, SeenTexts())
        repeats[long] = seen.add(np.array(digests, dtype=np.uint64), [texts[place] for place in long])
        return repeats


def _with_flag(rows: pa.Table, repeats: np.ndarray) -> pa.Table:
    flags = [
        [*(flags or ()), DUPLICATE_TEXT] if repeated else flags
        for flags, repeated in zip(rows["flags"].to_pylist(), repeats.tolist(), strict=True)
    ]
    place = rows.schema.get_field_index("flags")
    return rows.set_column(place, rows.schema.field(place), pa.array(flags, rows.schema.field(place).type))
