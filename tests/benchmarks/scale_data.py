"""A number of images -> the source, commits and staged labels of a job over them, without an image or a model.

Everything is written by the pipeline's own code; only the labels' texts are made up here.
"""

import dataclasses
import hashlib
import io
import itertools
import os
from collections.abc import Iterator, Sequence

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.commits import LABELLED, Commit, Outcome, outcome_table
from pipeline.manifest import read_shard
from pipeline.recipes import Recipe
from pipeline.sink import LabelSink
from pipeline.storage import join_uri, open_store
from pipeline.work import Work
from schemas.job import JobSpec
from schemas.rows import ImageRow, Label, to_columns
from tests.pipeline.rows import with_image

BLOCK_ROWS = 16
QUESTIONS, QUERIES = ("How many people are there?", "What time of day is it?"), ("the dog",)
NUM_ITEMS = {"ocr": 1, "caption": 1, "qa": len(QUESTIONS), "grounding": len(QUERIES)}
TEXT = "A street in the evening, with a row of parked cars and a shop whose sign says OPEN. "


def job_of(folder_uri: str, source_name: str, output_name: str) -> JobSpec:
    return JobSpec(
        name="scale",
        source={"uri": join_uri(folder_uri, source_name)},
        output=join_uri(folder_uri, output_name),
        recipes=["ocr", "caption", {"name": "qa", "questions": QUESTIONS}, {"name": "grounding", "queries": QUERIES}],
    )


def put_table_of_uris(folder_uri: str, num_images: int, *, row_group_rows: int = 100_000) -> None:
    """A Parquet table that names its images, in row groups as `datasets` and Spark write them."""
    names = pa.array([f"s3://photos/{number // 1000:06d}/{number:010d}.jpg" for number in range(num_images)])
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": names}), buffer, compression="zstd", row_group_size=row_group_rows)
    uri = join_uri(folder_uri, "images.parquet")
    open_store(uri).put(uri, buffer.getvalue())


def make_empty_files(folder: str, num_images: int) -> None:
    for first in range(0, num_images, 1000):
        below = os.path.join(folder, "files", f"{first // 1000:06d}")
        os.makedirs(below)
        for number in range(first, min(first + 1000, num_images)):
            with open(os.path.join(below, f"{number:010d}.jpg"), "xb"):
                pass


def commit_first(work: Work, num_images: int) -> int:
    """Commits so many images of the manifest in its order, in blocks as the sink's; gives the number of blocks."""
    num_blocks = 0
    for shard, sample_ids in _blocks(work, num_images):
        name = hashlib.sha256("".join(sample_ids).encode()).hexdigest()[:32]
        outcomes = outcome_table(
            Outcome(sample_id=sample_id, recipe=recipe.name, status=LABELLED, num_rows=NUM_ITEMS[recipe.name], run=1)
            for sample_id in sample_ids
            for recipe in work.recipes
        )
        files = dict.fromkeys(work.tables, name)
        work.folder.put_commit(shard, name, Commit(files=files, recipe_digests=work.recipe_digests, outcomes=outcomes))
        num_blocks += 1
    return num_blocks


def label_pending(work: Work, *, rows_per_block: int = BLOCK_ROWS) -> int:
    """Sends all pending images through the sink, with labels; gives the number of blocks."""
    sink, num_blocks = LabelSink(config=work.sink_config), 0
    rows = (row for shard in work.shards for rows in work.folder.pending(shard, work.wanted) for row in rows)
    while block := list(itertools.islice(rows, rows_per_block)):
        sink(to_columns([labelled(row, work.recipes) for row in block]))
        num_blocks += 1
    return num_blocks


def labelled(row: ImageRow, recipes: Sequence[Recipe]) -> ImageRow:
    labels = tuple(_label(row, recipe, item) for recipe in recipes for item in range(NUM_ITEMS[recipe.name]))
    sha256 = hashlib.sha256(row.image_uri.encode()).hexdigest()
    size = {"width_px": 640, "height_px": 480, "tiles_wide": 2, "tiles_high": 1}
    return dataclasses.replace(with_image(row, sha256=sha256, **size), labels=labels)


def _label(row: ImageRow, recipe: Recipe, item: int) -> Label:
    text = f"{TEXT}{row.sample_id[:8]}"
    box = {"label": QUERIES[0], "x1": 10.0, "y1": 20.0, "x2": 200.5, "y2": 300.25}
    values = {
        "ocr": {"text": text},
        "caption": {"caption": text},
        "qa": {"question": QUESTIONS[item % len(QUESTIONS)], "answer": text, "original_answer": None},
        "grounding": {"query": QUERIES[0], "text": text, "boxes": [box]},
    }
    return Label(
        recipe=recipe.name,
        recipe_digest=recipe.digest,
        table=recipe.table,
        item=item,
        prompt="Describe the image in detail.",
        num_prompt_tokens=600,
        num_output_tokens=40,
        finish_reason="stop",
        mean_logprob=-0.25,
        values=values[recipe.name],
    )


def _blocks(work: Work, num_images: int) -> Iterator[tuple[str, list[str]]]:
    left = num_images
    for shard in work.shards:
        for batch in read_shard(work.folder.shard_uri(shard), columns=["sample_id"], batch_rows=BLOCK_ROWS):
            if left <= 0:
                return
            yield shard, batch.column(0).to_pylist()[:left]
            left -= batch.num_rows
