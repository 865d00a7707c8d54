"""A number of label rows -> the finished output of a job over images of this disk, without a model.

Everything is written by the pipeline's own code; only the labels' texts are made up. The images are hard links to one
file a folder: each is a file with a name of its own, and of each a report can show the picture.
"""

import dataclasses
import hashlib
import itertools
import os
from collections.abc import Iterator

from PIL import Image, ImageDraw

from pipeline.run import run_job
from pipeline.sink import LabelSink
from pipeline.work import Work, inspect
from schemas.errors import ErrorKind, RowError
from schemas.job import JobSpec
from schemas.rows import ImageRow, Label, to_columns
from tests.benchmarks import scale_data
from tests.benchmarks.scale_steps import without_fsync
from tests.pipeline.rows import with_image

ROWS_PER_IMAGE = sum(scale_data.NUM_ITEMS.values())
ROWS_PER_BLOCK = 1_000
IMAGES_PER_FOLDER = 1_000
SOURCE, OUTPUT = "images", "labels"
KINDS = (ErrorKind.TRUNCATED, ErrorKind.UNREADABLE, ErrorKind.MISSING, ErrorKind.CONTEXT_TOO_LONG)
FLAGS = ("loop", "truncated", "echo")
GRIDS = ((1, 1), (2, 1), (1, 2), (2, 2), (3, 1))
_EVERY_QUARANTINED, _EVERY_FLAGGED = 100, 11
_SIZE_PX = (640, 480)


def job_of(folder: str) -> JobSpec:
    job = scale_data.job_of(folder, SOURCE, OUTPUT)
    return job.model_copy(update={"limits": job.limits.model_copy(update={"max_quarantined_fraction": 0.5})})


def make_output(folder: str, num_rows: int) -> dict[str, int]:
    """So many rows or a few more, labels and quarantine together; finalized."""
    num_images = -(-num_rows // ROWS_PER_IMAGE)
    sha256 = _make_images(os.path.join(folder, SOURCE), num_images)
    without_fsync()
    work = inspect(job_of(folder)).resolve(run=1)
    sink, rows = LabelSink(config=work.sink_config), _labelled(work, sha256)
    while block := list(itertools.islice(rows, ROWS_PER_BLOCK)):
        sink(to_columns(block))
    summary = run_job(job_of(folder))
    return {"images": num_images, "shards": len(work.shards), "tables": len(summary["num_rows"])}


def _labelled(work: Work, sha256: str) -> Iterator[ImageRow]:
    pending = (row for shard in work.shards for rows in work.folder.pending(shard, work.wanted) for row in rows)
    for number, row in enumerate(pending):
        if number % _EVERY_QUARANTINED == 0:
            kind = KINDS[number // _EVERY_QUARANTINED % len(KINDS)]
            yield row.failed(RowError(kind=kind, message=f"image {number} was made to fail"))
            continue
        wide, high = GRIDS[number % len(GRIDS)]
        labels = scale_data.labelled(row, work.recipes).labels
        size = {"width_px": _SIZE_PX[0], "height_px": _SIZE_PX[1], "tiles_wide": wide, "tiles_high": high}
        yield dataclasses.replace(
            with_image(row, sha256=sha256, **size), labels=tuple(_varied(label, number) for label in labels)
        )


def _varied(label: Label, number: int) -> Label:
    is_flagged = number % _EVERY_FLAGGED == 0
    return dataclasses.replace(
        label,
        mean_logprob=-(number % 97) / 40,
        flags=(FLAGS[number // _EVERY_FLAGGED % len(FLAGS)],) if is_flagged else (),
        finish_reason="length" if is_flagged else "stop",
    )


def _make_images(folder: str, num_images: int) -> str:
    """Gives the SHA-256 of every one of them."""
    picture = Image.effect_noise(_SIZE_PX, 40).convert("RGB")
    ImageDraw.Draw(picture).rectangle((10, 20, 200, 300), fill="red")
    first = os.path.join(folder, "000000", "0000000000.jpg")
    for number in range(num_images):
        below = os.path.join(folder, f"{number // IMAGES_PER_FOLDER:06d}")
        path = os.path.join(below, f"{number:010d}.jpg")
        if number % IMAGES_PER_FOLDER:
            os.link(os.path.join(below, f"{number - number % IMAGES_PER_FOLDER:010d}.jpg"), path)
        else:
            os.makedirs(below)
            picture.save(path, quality=85)
    with open(first, "rb") as file:
        return hashlib.sha256(file.read()).hexdigest()
