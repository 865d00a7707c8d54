"""A job -> what a run of it would do, take and cost, from looking at its source and labeling a few images of it here.

Writes nothing to the output and starts no cluster. What is printed is not known here.
"""

import random
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

from model.checkpoint_files import local_folder
from model.config_files import load_model_config
from pipeline.budget import budget_facts
from pipeline.fetch import FetchImage
from pipeline.forecast import num_tiles
from pipeline.label import ReplicaConfig
from pipeline.measure import Effort, Measured, in_blocks, measure
from pipeline.patience import Patience
from pipeline.placement import Placement
from pipeline.plan_cluster import PlannedCluster, memory_of, parts_of, planned_ranks
from pipeline.plan_facts import Sampled, forecast_facts, measured_facts, recipe_facts, sample_facts
from pipeline.prepare import TileImage
from pipeline.sample import Drawn, draw_rows
from pipeline.sizes import read_sizes
from pipeline.stage_arguments import fetch_arguments, tile_arguments
from pipeline.token_counts import tokens_of_output, tokens_of_rows
from pipeline.work import InspectedJob, inspect
from schemas.job import JobSpec
from schemas.rows import ImageRow, to_columns

MAX_MEASURED_IMAGES = 256
EFFORT = Effort(enough_rows=64, enough_s=20.0, max_s=90.0)
SEED = 0

Say = Callable[[str], None]


def plan(
    job: JobSpec, cluster: PlannedCluster, *, max_headers: int = 500, say: Say = lambda text: None
) -> dict[str, Any]:
    """
    Args:
        cluster: what the run would have.
        max_headers: images of which the size is read.
        say: told what is being done.

    Returns: what JSON can hold; `pipeline.plan_facts` says what stands in its parts.

    Raises:
        JobError, ValueError: as `pipeline.work.inspect`; a cluster whose GPUs do not hold the checkpoint.
    """
    say("looking at the source, the checkpoint and the output")
    inspected = inspect(job, probe_output=False)
    config = load_model_config(local_folder(job.checkpoint, weights=False))
    ranks = planned_ranks(job.engine, config, cluster)
    placement = Placement.for_cluster(cluster.size, job.resources, expert_ranks=ranks)
    drawn = draw_rows(inspected, max_rows=max_headers, seed=SEED)
    say(f"reading the headers of {len(drawn.rows)} images")
    sampled = read_headers(inspected, drawn)
    measured = None
    if sampled.rows and can_measure(cluster):
        some = spread_by_work(sampled.rows, MAX_MEASURED_IMAGES, seed=SEED)
        say(f"labeling up to {len(some)} of them, for about {EFFORT.max_s:g} s at most, to see how fast it goes")
        measured = _measure(inspected, some, placement, drawn.num_to_label)
    tables = sorted({recipe.table for recipe in inspected.recipes if recipe.is_written})
    tokens = {**(tokens_of_rows(measured.rows) if measured else {}), **tokens_of_output(inspected.folder, tables)}
    max_tokens = max((counts.max_tokens for counts in tokens.values()), default=0)
    forecast = forecast_facts(inspected, measured, placement, drawn, seed=SEED) if measured else None
    return {
        "name": job.name,
        "source": job.source.uri,
        "output": inspected.folder.output_uri,
        "checkpoint": inspected.checkpoint,
        "images": {key: value for key, value in vars(drawn).items() if key != "rows"},
        "sample": sample_facts(sampled, drawn, seed=SEED),
        "recipes": recipe_facts(inspected, tokens, measured, drawn),
        "measured": measured and measured_facts(measured, placement),
        "forecast": forecast,
        "budget": budget_facts(job.budget, drawn.num_to_label, forecast, datetime.now(UTC)),
        "memory": memory_of(job, config, ranks, cluster, max_tokens=max_tokens),
        "cluster": parts_of(placement, cluster),
    }


def can_measure(cluster: PlannedCluster) -> bool:
    """Whether this machine tells how fast that cluster is: a GPU's speed is not told by a CPU."""
    if cluster.is_this_machine:
        return True
    import torch

    return torch.cuda.is_available()


def spread_by_work(rows: Sequence[ImageRow], num_rows: int, *, seed: int) -> list[ImageRow]:
    """So many of the rows, evenly over their numbers of tiles, in random order: the few that are measured have the mix
    of the many of which the headers were read, and so has whatever part of them there is time for."""
    ordered = sorted(rows, key=num_tiles)
    num_rows = min(num_rows, len(ordered))
    picked = [ordered[int((place + 0.5) * len(ordered) / num_rows)] for place in range(num_rows)]
    random.Random(seed).shuffle(picked)
    return picked


def read_headers(inspected: InspectedJob, drawn: Drawn) -> Sampled:
    """Of the rows that were drawn; pages of documents are rendered, because only then they have a size."""
    began = time.monotonic()
    with closing(_fetch_stage(inspected)) as fetch, closing(_tile_stage(inspected, headers_only=True)) as tile:
        rows = read_sizes(
            drawn.rows,
            fetch=fetch,
            tile=tile,
            max_bytes=inspected.job.limits.max_bytes,
            patience=Patience.among_others(),
        )
        return Sampled(rows=tuple(rows), took_s=time.monotonic() - began)


def _measure(inspected: InspectedJob, rows: Sequence[ImageRow], placement: Placement, num_images: int) -> Measured:
    tile_stage = _tile_stage(inspected, num_threads=placement.num_tile_actors)
    with closing(_fetch_stage(inspected)) as fetch, closing(tile_stage) as tile:
        return measure(
            [to_columns(block) for block in in_blocks(rows, placement, num_images)],
            fetch=fetch,
            tile=tile,
            replica=ReplicaConfig.of(inspected.job, placement),
            recipes=inspected.recipes,
            effort=EFFORT,
        )


def _fetch_stage(inspected: InspectedJob) -> FetchImage:
    source = inspected.source
    return FetchImage(
        **fetch_arguments(inspected.job, image_column=source.image_column, uri_policy=inspected.uri_policy)
    )


def _tile_stage(inspected: InspectedJob, **how: Any) -> TileImage:
    resolutions = inspected.candidate_resolutions
    arguments = tile_arguments(inspected.job.limits, candidate_resolutions=resolutions, recipes=inspected.recipes)
    return TileImage(**arguments, **how)
