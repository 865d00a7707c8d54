"""One image URI -> its labelled row, in this process, through the same stages as a run but without a cluster."""

import asyncio
from collections.abc import Sequence
from contextlib import closing

from model.checkpoint_files import digest as checkpoint_digest
from model.checkpoint_files import local_folder
from model.config import load_processor_config
from pipeline.fetch import FetchImage
from pipeline.label import LabelImage, ReplicaConfig
from pipeline.patience import FIRST_CONTACT_S, Patience
from pipeline.prepare import TileImage
from pipeline.recipes import check_recipes, make_recipes
from pipeline.stage_arguments import tile_arguments
from pipeline.storage import canonical_uri
from schemas.job import EngineSpec, LimitsSpec, RecipeSpec
from schemas.rows import TILES_COLUMN, ImageRow, RowImage, rows_of, to_columns


def label_one(
    uri: str, *, recipes: Sequence[RecipeSpec], checkpoint: str, engine: EngineSpec, limits: LimitsSpec
) -> ImageRow:
    """The image with its labels, or with the error that a run would quarantine it with.

    Raises ValueError for a checkpoint that cannot be loaded.
    """
    folder = local_folder(checkpoint, weights=False)
    resolutions = load_processor_config(folder).candidate_resolutions
    row = ImageRow(
        sample_id="",
        images=(RowImage(uri=canonical_uri(uri)),),
        manifest_shard="",
        recipes=tuple(check_recipes(recipes)),
    )
    fetch = FetchImage(
        max_bytes=limits.max_bytes,
        image_column=None,
        patience=Patience.from_environment(at_most_s=FIRST_CONTACT_S),  # somebody sits and waits
    )
    block = fetch(to_columns([row]))
    with closing(TileImage(**tile_arguments(limits, candidate_resolutions=resolutions, recipes=()))) as tiler:
        block = tiler(block)
    (row,) = rows_of(block)
    if row.error is not None:
        return row
    digest = checkpoint_digest(local_folder(checkpoint))
    stage = LabelImage(
        replica=ReplicaConfig(checkpoint=checkpoint, engine=engine),
        recipes=make_recipes(recipes, checkpoint_digest=digest),
    )
    try:
        return asyncio.run(stage.label(row, block[TILES_COLUMN][0]))
    finally:
        stage.close()
