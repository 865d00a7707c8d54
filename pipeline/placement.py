"""A cluster's size and a job's resources -> how many actors of each stage run, and on which share of it.

Knows no Ray: what it says is handed to Ray by `pipeline.label_images`, and to people by `pipeline.plan`.
"""

from collections.abc import Callable
from dataclasses import dataclass

from schemas.job import EngineSpec, ResourcesSpec

MAX_ROWS_PER_BLOCK = 16
"""A block of tiles is one message between actors: 16 images of 10 tiles are 70 MB."""

BLOCKS_IN_FLIGHT = 4
"""Blocks one label actor works on at once, so that its engine's batch never drains between two."""


@dataclass(frozen=True, kw_only=True)
class ClusterSize:
    num_cpus: float
    num_gpus: float
    gpus_by_node: tuple[int, ...] = ()


def expert_ranks_of(engine: EngineSpec, size: ClusterSize, *, fewest: Callable[[int], int]) -> int:
    """Over how many GPUs of a node the experts of one replica are spread: where the job leaves it open, over as few as
    hold the checkpoint and a cache worth having; 1 without GPUs.

    Args:
        fewest: asked with the GPUs of a node (of the node with the fewest); it may raise ValueError.

    Raises ValueError where no node has so many GPUs as the job says, or GPUs are demanded and none is there that could
    be asked; and what `fewest` raises.
    """
    gpus = [num_gpus for num_gpus in size.gpus_by_node if num_gpus]
    on_gpu = bool(gpus) and engine.device != "cpu"
    if engine.expert_ranks == "auto":
        if not gpus and engine.device == "cuda":
            raise ValueError(
                "engine.expert_ranks is auto, but the cluster has no GPU yet whose memory could decide: give the "
                "number of GPUs that one replica gets (labelmill plan --gpus tells it)"
            )
        return fewest(min(gpus)) if on_gpu else 1
    if on_gpu and engine.expert_ranks > max(gpus):
        raise ValueError(
            f"engine.expert_ranks is {engine.expert_ranks}, but a node of the cluster has {max(gpus)} GPUs at most: "
            "the ranks of a replica run on one node"
        )
    return engine.expert_ranks


@dataclass(frozen=True, kw_only=True)
class Placement:
    """How many actors, and the share of a CPU that Ray reserves for each.

    Reservations only decide what Ray starts at once; they are small, because one whole CPU must stay free: Ray's
    repartition asks for that much, and a pipeline of actors that holds every CPU waits for it for ever.
    """

    num_tile_actors: int
    num_label_actors: int
    """Replicas at the start."""
    label_num_cpus: float
    label_num_gpus: float
    label_num_threads: int
    """Of tensor work, per label actor; matters on a CPU only."""
    expert_ranks: int = 1
    """Processes of one label actor that the experts are spread over."""
    max_label_actors: int = 0
    """Replicas that the pool grows to as GPUs come free; 0 where it does not grow."""
    fetch_num_cpus: float = 0.1
    tile_num_cpus: float = 0.25
    task_num_cpus: float = 0.1

    @classmethod
    def for_cluster(
        cls, size: ClusterSize, resources: ResourcesSpec, *, expert_ranks: int = 1, needs_gpu: bool = False
    ) -> "Placement":
        """With GPUs: as many label actors as find `expert_ranks` of them on a node, the CPUs to the tilers. Without:
        one label actor on half of the CPUs.

        Args:
            needs_gpu: replicas wait for GPUs, where the cluster has none yet, and don't run on CPUs.
        """
        num_cpus, on_gpu = int(size.num_cpus), size.num_gpus >= 1 or needs_gpu
        on_nodes = sum(num_gpus // expert_ranks for num_gpus in size.gpus_by_node)
        auto_label = max(1, on_nodes) if on_gpu else 1
        auto_tile = max(1, num_cpus - auto_label - 1 if on_gpu else num_cpus // 4)
        num_label_actors = auto_label if resources.label_actors == "auto" else resources.label_actors
        most = resources.max_label_actors or 0
        num_label_actors = min(num_label_actors, most) if most else num_label_actors
        num_tile_actors = auto_tile if resources.tile_actors == "auto" else resources.tile_actors
        free = max(0.1, num_cpus - 1 - cls.fetch_num_cpus - cls.task_num_cpus)
        return cls(
            num_tile_actors=num_tile_actors,
            num_label_actors=num_label_actors,
            label_num_cpus=round(min(1.0, free / 2 / num_label_actors), 3),
            label_num_gpus=float(expert_ranks) if on_gpu else 0.0,
            expert_ranks=expert_ranks,
            max_label_actors=most if most > num_label_actors else 0,
            label_num_threads=max(1, num_cpus // 2 // num_label_actors),
            tile_num_cpus=round(min(1.0, free / 2 / num_tile_actors), 3),
        )

    def rows_per_block(self, num_images: int) -> int:
        """Small jobs in small blocks, so that every label actor gets some and labels arrive while others are tiled."""
        blocks_wanted = max(self.num_label_actors, self.max_label_actors) * BLOCKS_IN_FLIGHT
        return max(1, min(MAX_ROWS_PER_BLOCK, -(-num_images // blocks_wanted)))
