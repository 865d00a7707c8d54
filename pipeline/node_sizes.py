"""A job and the GPU nodes that it is to have -> what each machine of its cluster must hold: CPUs, GPUs, memory, disk.

Looks at the checkpoint's configuration, and at no cluster, source or output. Knows no Kubernetes.
"""

import math
from dataclasses import dataclass

from model.checkpoint_files import local_folder
from model.config import ModelConfig
from model.config_files import load_model_config
from model.memory_plan import RankMemory, rank_memory
from pipeline.label import resolve_dtype
from pipeline.placement import ClusterSize, Placement
from pipeline.plan_cluster import described, planned_ranks
from schemas.job import JobSpec

TILE_CPUS_PER_GPU = 8
"""One core tiles 28 one-megapixel JPEGs a second and about 3 photographs of 12 megapixels (docs/performance.md)."""
LABEL_CPUS_PER_GPU = 4
"""Of a rank: its engine's steps, its Ray worker, and what feeds both."""
LABEL_PROCESS_GB, TILE_PROCESS_GB = 2.0, 1.5
"""Python, torch or Pillow, and the images in hand of one worker."""
ACTORS_PER_LARGEST_IMAGE = 8
"""One in so many tile actors is taken to decode an image that needs all memory that the job allows it."""
OBJECT_STORE_FRACTION = 0.3
"""Of a machine's memory, as Ray takes by default."""
SYSTEM_GB = 2.0
"""Ray's own processes on each machine."""
HEAD_CPUS, HEAD_MEMORY_GB, HEAD_DISK_GB = 4, 16, 20
"""The driver lists the source and writes the dataset; docs/scale.md has its memory for a million images."""
SCRATCH_GB = 10
"""Ray's logs, and blocks that it spills."""
MIB = 1024**2


@dataclass(frozen=True, kw_only=True)
class GpuNodes:
    """The machines that a person has or will rent."""

    num_nodes: int = 1
    gpus_per_node: int = 1
    gpu_memory_gb: float = 80.0


@dataclass(frozen=True, kw_only=True)
class NodeSize:
    """Of one machine, of `num_nodes` equal ones. `ray_num_cpus`: what Ray is told of. Memory and disk in 10^9 bytes."""

    num_nodes: int
    num_cpus: int
    ray_num_cpus: int
    memory_gb: int
    disk_gb: int
    num_gpus: int = 0


@dataclass(frozen=True, kw_only=True)
class ClusterSizes:
    """`labeling` is None where the job labels on CPUs: the tiling machines do that too."""

    head: NodeSize
    tiling: NodeSize
    labeling: NodeSize | None
    placement: Placement
    memory: RankMemory


def cluster_sizes(
    job: JobSpec, gpus: GpuNodes, *, tile_nodes: int = 1, tile_cpus_per_node: int | None = None
) -> ClusterSizes:
    """
    Args:
        tile_cpus_per_node: by default so many that every GPU has `TILE_CPUS_PER_GPU`.

    Raises ValueError where the checkpoint cannot be looked at, or does not fit those GPUs.
    """
    config = load_model_config(local_folder(job.checkpoint, weights=False))
    on_gpu = job.engine.device != "cpu"
    num_gpus = gpus.num_nodes * gpus.gpus_per_node if on_gpu else 0
    tile_cpus = tile_cpus_per_node or max(4, math.ceil(num_gpus * TILE_CPUS_PER_GPU / tile_nodes))
    machines = described(
        gpus=gpus.gpus_per_node if on_gpu else 0,
        gpu_memory_gb=gpus.gpu_memory_gb if on_gpu else 0,
        nodes=gpus.num_nodes if on_gpu else tile_nodes,
        cpus=tile_cpus,
    )
    ranks = planned_ranks(job.engine, config, machines)
    replicas_per_node = gpus.gpus_per_node // ranks if on_gpu else 0
    size = _with_cpus(machines.size, tile_nodes * tile_cpus + gpus.num_nodes * replicas_per_node)
    placement = Placement.for_cluster(size, job.resources, expert_ranks=ranks)
    memory = _memory(job, config, ranks=ranks, gpu_memory_gb=gpus.gpu_memory_gb, on_gpu=on_gpu)
    whole_gb = _whole_checkpoint_gb(job, config, on_gpu=on_gpu)
    tiling = _tiling(job, placement, num_nodes=tile_nodes, num_cpus=tile_cpus, label_gb=0 if on_gpu else whole_gb)
    head = NodeSize(num_nodes=1, num_cpus=HEAD_CPUS, ray_num_cpus=0, memory_gb=HEAD_MEMORY_GB, disk_gb=HEAD_DISK_GB)
    labeling = _labeling(gpus, memory, replicas_per_node=replicas_per_node, whole_gb=whole_gb) if on_gpu else None
    return ClusterSizes(head=head, tiling=tiling, labeling=labeling, placement=placement, memory=memory)


def _with_cpus(size: ClusterSize, num_cpus: int) -> ClusterSize:
    return ClusterSize(num_cpus=num_cpus, num_gpus=size.num_gpus, gpus_by_node=size.gpus_by_node)


def _memory(job: JobSpec, config: ModelConfig, *, ranks: int, gpu_memory_gb: float, on_gpu: bool) -> RankMemory:
    return rank_memory(
        config,
        num_ranks=ranks,
        device_bytes=int(gpu_memory_gb * 1e9) if on_gpu else 0,
        dtype=resolve_dtype(job.engine.dtype, "cuda" if on_gpu else "cpu"),
        prefill_chunk_tokens=job.engine.prefill_chunk_tokens,
    )


def _tiling(job: JobSpec, placement: Placement, *, num_nodes: int, num_cpus: int, label_gb: float) -> NodeSize:
    """Where more of the largest images meet than there is memory for, the kernel ends a decoder, and its image is tried
    again; then it is in quarantine."""
    actors = math.ceil(placement.num_tile_actors / num_nodes)
    largest_gb = math.ceil(actors / ACTORS_PER_LARGEST_IMAGE) * job.limits.decode_memory_mb * MIB / 1e9
    processes_gb = SYSTEM_GB + actors * TILE_PROCESS_GB + largest_gb + label_gb
    return NodeSize(
        num_nodes=num_nodes,
        num_cpus=num_cpus,
        ray_num_cpus=num_cpus,
        memory_gb=math.ceil(processes_gb / (1 - OBJECT_STORE_FRACTION)),
        disk_gb=math.ceil(SCRATCH_GB + label_gb),
    )


def _labeling(gpus: GpuNodes, memory: RankMemory, *, replicas_per_node: int, whole_gb: float) -> NodeSize:
    """Weights pass through the machine's memory on their way to the GPUs, and stay on its disk.

    Ray is told of one CPU for each replica: what tiles has no room there.
    """
    num_ranks = replicas_per_node * memory.num_ranks
    processes_gb = SYSTEM_GB + num_ranks * (LABEL_PROCESS_GB + memory.weight_bytes / 1e9)
    return NodeSize(
        num_nodes=gpus.num_nodes,
        num_cpus=LABEL_CPUS_PER_GPU * num_ranks,
        ray_num_cpus=replicas_per_node,
        memory_gb=math.ceil(processes_gb / (1 - OBJECT_STORE_FRACTION)),
        disk_gb=math.ceil(SCRATCH_GB + whole_gb),
        num_gpus=num_ranks,
    )


def _whole_checkpoint_gb(job: JobSpec, config: ModelConfig, *, on_gpu: bool) -> float:
    """All weights, in the type that they are computed in: published files hold 16-bit floats, and are no larger."""
    return _memory(job, config, ranks=1, gpu_memory_gb=0, on_gpu=on_gpu).weight_bytes / 1e9
