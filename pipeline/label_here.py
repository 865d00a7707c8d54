"""Image URIs -> their labelled rows, in this process, through the same stages as a run but without a cluster."""

import asyncio
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass

import numpy as np

from model.checkpoint_files import digest as checkpoint_digest
from model.checkpoint_files import local_folder
from model.config_files import load_processor_config
from pipeline.fetch import FetchImage
from pipeline.label import LabelImage, ReplicaConfig
from pipeline.patience import FIRST_CONTACT_S, Patience
from pipeline.prepare import TileImage
from pipeline.recipes import check_recipes, make_recipes
from pipeline.stage_arguments import tile_arguments
from pipeline.storage import canonical_uri
from schemas.job import EngineSpec, LimitsSpec, RecipeSpec
from schemas.rows import ENCODED_COLUMN, TILES_COLUMN, ImageRow, RowImage, rows_of, to_columns


@dataclass(frozen=True, kw_only=True)
class LabelledHere:
    row: ImageRow
    """With its labels, or with the error that a run would quarantine it with."""
    encoded: bytes
    """The image file; empty where it could not be fetched."""


def label_here(
    uris: Sequence[str], *, recipes: Sequence[RecipeSpec], checkpoint: str, engine: EngineSpec, limits: LimitsSpec
) -> list[LabelledHere]:
    """Each image is a sample of its own; all are in the engine at once.

    Raises ValueError for a checkpoint that cannot be loaded.
    """
    folder = local_folder(checkpoint, weights=False)
    resolutions = load_processor_config(folder).candidate_resolutions
    names = tuple(check_recipes(recipes))
    fetch = FetchImage(
        max_bytes=limits.max_bytes,
        image_column=None,
        patience=Patience.from_environment(at_most_s=FIRST_CONTACT_S),  # somebody sits and waits
    )
    wanted = [
        ImageRow(sample_id="", images=(RowImage(uri=canonical_uri(uri)),), manifest_shard="", recipes=names)
        for uri in uris
    ]
    fetched = fetch(to_columns(wanted))
    files = [bytes(next(iter(files), b"")) for files in fetched[ENCODED_COLUMN]]
    with closing(TileImage(**tile_arguments(limits, candidate_resolutions=resolutions, recipes=()))) as tiler:
        block = tiler(fetched)
    rows = rows_of(block)
    if any(row.error is None for row in rows):
        digest = checkpoint_digest(local_folder(checkpoint))
        stage = LabelImage(
            replica=ReplicaConfig(checkpoint=checkpoint, engine=engine),
            recipes=make_recipes(recipes, checkpoint_digest=digest),
        )
        with closing(stage):
            rows = asyncio.run(_label_all(stage, rows, list(block[TILES_COLUMN])))
    return [LabelledHere(row=row, encoded=encoded) for row, encoded in zip(rows, files, strict=True)]


async def _label_all(stage: LabelImage, rows: Sequence[ImageRow], tiles: Sequence[np.ndarray]) -> list[ImageRow]:
    return await asyncio.gather(*map(stage.label, rows, tiles))
