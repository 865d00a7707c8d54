"""A recipe and the manifest -> how many labels it owes each sample: what `pipeline.recipes.asks` asks, counted without
asking.
"""

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from pipeline.recipes.asks import answered_turns
from pipeline.recorded_recipes import RecordedRecipe

OWED_COLUMNS = ("images", "questions", "queries", "turns", "marks")
"""Of the manifest, those that are read."""

ANY_NUMBER = 1 << 40


def owed_labels(recipe: RecordedRecipe, manifest: pa.RecordBatch) -> np.ndarray:
    """(2, samples) the fewest and the most labels of each sample; 0 where nothing is asked of it, up to `ANY_NUMBER`
    where it depends on what the model says."""
    spec = recipe.spec
    match recipe.file.last.each:
        case None:
            owed_N = np.ones(manifest.num_rows, np.int64)
        case "questions":
            owed_N = _lengths(manifest, "questions", len(spec.questions))
        case "queries":
            owed_N = _lengths(manifest, "queries", len(spec.queries))
        case "marks":
            owed_N = _lengths(manifest, "marks") * max(1, len(spec.questions))
        case "turns":
            turns = manifest.column("turns").to_pylist()
            owed_N = np.array([len(answered_turns([turn["role"] for turn in of])) for of in turns], np.int64)
        case _:
            return np.stack([np.zeros(manifest.num_rows, np.int64), np.full(manifest.num_rows, ANY_NUMBER)])
    is_taken_N = [recipe.file.takes(num_images) for num_images in _lengths(manifest, "images").tolist()]
    owed_N = np.where(is_taken_N, owed_N, 0)
    return np.stack([owed_N, owed_N])


def _lengths(manifest: pa.RecordBatch, column: str, of_the_job: int = 0) -> np.ndarray:
    """How long each sample's list is; where the job has a list of its own, that one's length."""
    if of_the_job:
        return np.full(manifest.num_rows, of_the_job, np.int64)
    return pc.list_value_length(manifest.column(column)).fill_null(0).to_numpy(zero_copy_only=False).astype(np.int64)
