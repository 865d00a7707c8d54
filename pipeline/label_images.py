"""The diagram: manifest shards -> pending rows -> fetched -> tiled -> labelled -> committed, as one Ray Dataset.

Here, in `cluster.py`, `expert_ranks.py` and `metrics.py` alone Ray is known. Every stage is a plain class that a test
calls on a block.
"""

import inspect
from collections.abc import AsyncIterator, Iterator, Sequence
from typing import Any

import ray.data
from ray.data import ActorPoolStrategy, Dataset

from pipeline.cluster import StopSignal, prefer_nodes_without_gpus
from pipeline.counted import Counting, counted, counted_fetch, counted_label
from pipeline.fetch import FetchImage
from pipeline.in_hand import InHand
from pipeline.label import LabelImage, ReplicaConfig
from pipeline.ledger import RunFolder
from pipeline.pending import Wanted
from pipeline.placement import BLOCKS_IN_FLIGHT, Placement
from pipeline.prepare import TileImage
from pipeline.sink import LabelSink
from pipeline.stage_arguments import fetch_arguments, tile_arguments
from pipeline.work import Work
from pipeline.worker_deaths import Actor, WorkerDeaths
from schemas.rows import to_columns

SHARD_COLUMN = "shard"

MAX_DEATHS_OF_A_WORKER = 100
"""Restarts of one actor, and retries of one task, before the run fails. Ray's own default is no end of them; a few
would not do: every row that kills its worker costs three (see `pipeline.in_hand`), and a lost node takes many along."""


def label_images(work: Work, placement: Placement, *, shards: Sequence[str]) -> Dataset:
    """The whole run, lazily: a dataset of the sink's receipts, one row per committed block.

    Args:
        shards: of the manifest, those that may have pending rows.
    """
    job, stop, rows_per_block = work.job.name, stop_signal(work), placement.rows_per_block(work.num_images)
    of_actors: dict[str, Any] = {"max_restarts": MAX_DEATHS_OF_A_WORKER, "max_task_retries": MAX_DEATHS_OF_A_WORKER}
    of_tasks: dict[str, Any] = {"max_retries": MAX_DEATHS_OF_A_WORKER}
    return (
        ray.data.from_items([{SHARD_COLUMN: shard} for shard in shards])
        .map_batches(
            counted(ListPending, Counting(job=job, stage="list"))(folder=work.folder, wanted=work.wanted, stop=stop),
            batch_size=1,
            num_cpus=placement.task_num_cpus,
            **of_tasks,
        )
        .repartition(target_num_rows_per_block=rows_per_block)
        .map_batches(
            until_stopped(counted_fetch(FetchImage, job), stop),
            fn_constructor_kwargs=fetch_arguments(work.job, image_column=work.image_column, uri_policy=work.uri_policy),
            batch_size=None,
            num_cpus=placement.fetch_num_cpus,
            compute=ActorPoolStrategy(size=1),
            ray_remote_args_fn=prefer_nodes_without_gpus,
            **of_actors,
        )
        .map_batches(
            until_stopped(counted(TileImage, Counting(job=job, stage="tile")), stop),
            fn_constructor_kwargs=tile_arguments(
                work.job.limits, candidate_resolutions=work.candidate_resolutions, recipes=work.recipes
            ),
            batch_size=None,
            num_cpus=placement.tile_num_cpus,
            compute=ActorPoolStrategy(size=placement.num_tile_actors),
            ray_remote_args_fn=prefer_nodes_without_gpus,
            **of_actors,
        )
        .map_batches(
            until_stopped(counted_label(LabelImage, job, work.recipes), stop),
            fn_constructor_kwargs={
                "replica": ReplicaConfig.of(work.job, placement),
                "recipes": work.recipes,
                "in_hand": InHand(work.folder.in_hand_uri, work.wanted.run),
                "deaths": WorkerDeaths(work.folder.in_hand_uri, work.wanted.run, this_actor=_this_actor),
            },
            batch_size=rows_per_block,  # a block each; Ray demands a number where there are GPUs
            num_cpus=placement.label_num_cpus,
            num_gpus=placement.label_num_gpus,
            compute=_replica_pool(placement),
            **of_actors,
        )
        .map_batches(
            counted(LabelSink, Counting(job=job, stage="sink"))(config=work.sink_config),
            batch_size=None,
            num_cpus=placement.task_num_cpus,
            **of_tasks,
        )
    )


def _this_actor() -> Actor:
    context = ray.get_runtime_context()
    return Actor(name=context.get_actor_id() or "", is_successor=bool(context.was_current_actor_reconstructed))


def _replica_pool(placement: Placement) -> ActorPoolStrategy:
    """A pool that grows asks the cluster for GPUs that it does not have, if something there can add nodes."""
    at_start, most = placement.num_label_actors, placement.max_label_actors
    return ActorPoolStrategy(
        min_size=at_start,
        initial_size=at_start,
        max_size=most or at_start,
        max_concurrent_calls_per_actor=BLOCKS_IN_FLIGHT,
    )


def stop_signal(work: Work) -> StopSignal:
    return StopSignal(f"{work.folder.output_uri}#{work.wanted.run}")


class ListPending:
    """{shard} -> {row, carried} of the images that still lack a recipe, read from that shard's own commits."""

    def __init__(self, *, folder: RunFolder, wanted: Wanted, stop: StopSignal) -> None:
        self._folder, self._wanted, self._stop = folder, wanted, stop

    def __call__(self, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        for shard in block[SHARD_COLUMN]:
            for rows in self._folder.pending(str(shard), self._wanted):
                if self._stop.is_sent:
                    return
                yield to_columns(rows)


def until_stopped(stage: type[Any], stop: StopSignal) -> type[Any]:
    """The stage, leaving out blocks that come after the run was asked to stop: their rows stay pending. It keeps its
    name, which Ray shows."""

    def call(self: Any, block: dict[str, Any]) -> Iterator[dict[str, Any]]:
        if not stop.is_sent:
            yield stage.__call__(self, block)

    async def call_async(self: Any, block: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
        if not stop.is_sent:
            async for labelled in stage.__call__(self, block):
                yield labelled

    is_async = inspect.isasyncgenfunction(stage.__call__)
    return type(stage.__name__, (stage,), {"__call__": call_async if is_async else call})
