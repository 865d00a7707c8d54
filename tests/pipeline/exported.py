"""Finished outputs of drawn pictures with known boxes, made by the real stages; a test says the labels.

Every picture is white with one red rectangle, at a known place of the upright picture.
"""

import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from pipeline.fetch import FetchImage
from pipeline.finalize import finalize
from pipeline.lease import hold_lease
from pipeline.ledger import RunFolder
from pipeline.manifest import write_manifest
from pipeline.output_names import RUN_FILE
from pipeline.prepare import TileImage
from pipeline.sink import LabelSink
from pipeline.source import SourceRow
from pipeline.storage import canonical_uri, join_uri, open_store
from pipeline.work import Work
from schemas.rows import ImageRow, Label, RowImage, rows_of, to_columns
from tests.pipeline.outputs import job_of, pending, resolve

RED, WHITE = (255, 0, 0), (255, 255, 255)
Corners = tuple[int, int, int, int]

ORIENTATION_TAG, MAKER_TAG, MAKER = 0x0112, 0x010F, "drawn by a test"

PICTURES: dict[str, tuple[tuple[int, int], Corners, int]] = {
    "a/plain.png": ((120, 80), (10, 20, 50, 60), 1),
    "b/plain.png": ((90, 90), (40, 30, 80, 70), 1),
    "a/Photo One.JPG": ((160, 120), (96, 8, 152, 56), 6),
    "mirrored.jpg": ((160, 120), (8, 64, 72, 112), 5),
    "tall.png": ((12, 400), (2, 300, 10, 380), 1),
    "tiny.png": ((3, 2), (1, 0, 3, 1), 1),
    "turned.png": ((70, 30), (50, 2, 68, 20), 7),
    "turned.tiff": ((100, 60), (60, 10, 90, 40), 8),
    "wide.webp": ((600, 20), (500, 4, 580, 16), 3),
}
"""By name: size of the upright picture, its rectangle (right and bottom are outside), and the file's orientation."""

_STORED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_90,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_270,
}
"""By orientation, how the pixels of an upright picture are stored."""

_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    "jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    "png": ("PNG", {}),
    "tiff": ("TIFF", {}),
    "webp": ("WEBP", {"lossless": True}),
}


def encoded(name: str) -> bytes:
    """The file, which its orientation turns into the picture."""
    size, (left, top, right, bottom), orientation = PICTURES[name]
    picture = Image.new("RGB", size, WHITE)
    ImageDraw.Draw(picture).rectangle((left, top, right - 1, bottom - 1), fill=RED)
    format_, options = _FORMATS[name.rpartition(".")[2].lower()]
    if orientation in _STORED:
        picture, exif = picture.transpose(_STORED[orientation]), Image.Exif()
        exif[ORIENTATION_TAG] = orientation
        exif[MAKER_TAG] = MAKER
        options = {**options, "exif": exif.tobytes() if format_ != "TIFF" else exif}
    file = io.BytesIO()
    picture.save(file, format_, **options)
    return file.getvalue()


def box_of(name: str, label: str = "red thing") -> dict[str, Any]:
    left, top, right, bottom = PICTURES[name][1]
    return {"label": label, "x1": left, "y1": top, "x2": right, "y2": bottom}


def put_pictures(folder_uri: object, names: Sequence[str] = tuple(PICTURES)) -> str:
    for name in names:
        open_store(str(folder_uri)).put(join_uri(str(folder_uri), name), encoded(name))
    return str(folder_uri)


def label(
    table: str, *, recipe: str = "", item: int = 0, flags: Sequence[str] = (), instruction: str = "Tell.", **own: Any
) -> Label:
    """By default of a recipe that is called as its table."""
    return Label(
        recipe=recipe or table,
        recipe_digest="0" * 16,
        table=table,
        item=item,
        instruction=instruction,
        prompt=instruction,
        num_prompt_tokens=1,
        num_output_tokens=1,
        finish_reason="stop",
        mean_logprob=-0.5,
        flags=tuple(flags),
        values=own,
    )


def ask(question: str, answer: str, *, images: Sequence[int] | None = None, **more: Any) -> Label:
    """One label of the table `qa`."""
    return label("qa", **{"recipe": "qa", **more}, question=question, answer=answer, question_images=images)


def name_of(row: ImageRow) -> str:
    """As in `PICTURES`."""
    return next((name for name in PICTURES if row.image_uri.endswith(f"/{name}")), "")


def finished_output(
    source: object,
    output: object,
    labels: Callable[[ImageRow], Sequence[Label]],
    *,
    samples: Sequence[Sequence[str]] | None = None,
    **job: Any,
) -> str:
    """An output of `labels`, whatever recipes they name.

    Args:
        samples: for each one the names of its pictures in the source; by default every picture is one.
        job: values of its file.
    """
    work = resolve(job_of(source, output, **job))
    if samples is not None:
        _replace_manifest(work, [[join_uri(str(source), name) for name in names] for names in samples])
    rows = [replace(row, labels=tuple(labels(row))) for row in prepared(work, pending(work))]
    digests = dict.fromkeys((of.recipe for row in rows for of in row.labels), "0" * 16)
    config = replace(work.sink_config, recipe_digests=digests)
    for block in (rows[1::2], rows[::2]):  # in another order than the source's
        LabelSink(config=config)(to_columns([replace(row, recipes=tuple(digests)) for row in block]))
    accounts = finalize(
        work.folder,
        shards=work.shards,
        tables=list(dict.fromkeys(of.table for row in rows for of in row.labels)),
        recipe_digests=digests,
        carried_schema=work.carried_schema,
    )
    work.folder.put_json(
        "summary.json",
        {
            "num_images": accounts.num_images,
            "num_rows": dict(accounts.num_rows),
            "num_quarantined_images": accounts.num_quarantined_images,
            "times": {"finished_at": "2026-01-01T00:00:00+00:00"},
            "recipes": dict.fromkeys(work.recipe_digests),
            "this_run": {
                "images_per_s": 4.5,
                "timeline": {"elapsed_s": [0.0, 1.0, 2.0], "num_images": [0, 4, 9], "num_output_tokens": [0, 40, 70]},
                "expert_imbalance": [1.5, 1.25],
            },
        },
    )
    return str(work.folder.output_uri)


def ended(output: str, *recipes: str) -> None:
    """As a run of these recipes leaves its lease and its record."""
    folder = RunFolder(canonical_uri(output))
    with hold_lease(folder.lease_uri):
        run = folder.get_json(RUN_FILE)
        assert run is not None
        run["identity"]["recipes"] = dict.fromkeys(recipes, "0" * 16)
        folder.put_json(RUN_FILE, run)


def prepared(work: Work, rows: Sequence[ImageRow]) -> list[ImageRow]:
    """Fetched and decoded: with hashes, sizes and grids."""
    fetch = FetchImage(max_bytes=10**8, image_column=work.image_column, uri_policy=work.uri_policy)
    tile = TileImage(candidate_resolutions=((384, 384),), max_pixels=10**8)
    try:
        return rows_of(tile(fetch(to_columns(rows))))
    finally:
        tile.close()


class _Samples:
    """A source of samples that name their pictures."""

    folder_uri, image_column, carried_schema, num_ignored = "", None, None, 0

    def __init__(self, uris: Sequence[Sequence[str]]) -> None:
        self._uris = uris

    def rows(self) -> Iterator[SourceRow]:
        for line, uris in enumerate(self._uris):
            yield SourceRow(images=tuple(RowImage(uri=uri) for uri in uris), place=f"samples.jsonl#{line:03d}")


def _replace_manifest(work: Work, uris: Sequence[Sequence[str]]) -> None:
    write_manifest(_Samples(uris), work.folder.manifest_uri, limit=None)
    run = work.folder.get_json(RUN_FILE)
    assert run is not None
    work.folder.put_json(RUN_FILE, {**run, "num_images": len(uris)})


def assert_upright_with_its_rectangle(picture: Image.Image, name: str) -> None:
    """For a reader that looks at pixels alone: no tag turns them, and red is where the picture has it."""
    size, (left, top, right, bottom), _ = PICTURES[name]
    assert picture.size == size, name
    assert ORIENTATION_TAG not in picture.getexif(), name
    is_red = np.asarray(picture.convert("RGB"))[:, :, 1] < 128
    expected = np.zeros_like(is_red)
    expected[top:bottom, left:right] = True
    np.testing.assert_array_equal(is_red, expected, err_msg=name)
