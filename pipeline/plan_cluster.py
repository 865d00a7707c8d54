"""A cluster, this machine or one that is only described -> the parts of it that a job would use, and its memory.

Starts nothing and asks no cluster.
"""

import os
from dataclasses import asdict, dataclass
from typing import Any

from model.config import ModelConfig
from pipeline.placement import ClusterSize, Placement, expert_ranks_of
from schemas.job import EngineSpec, JobSpec

CPU_MEMORY_NOTE = "on CPUs the model shares the machine's memory with all else"
ONE_RANK_NOTE = "the checkpoint fits one GPU: one rank per replica, which is faster than spreading the experts"


@dataclass(frozen=True, kw_only=True)
class PlannedCluster:
    size: ClusterSize
    gpu_bytes: int = 0
    """Memory of one GPU."""
    is_this_machine: bool = True

    @property
    def name(self) -> str:
        return "this machine" if self.is_this_machine else "the cluster that was described"

    @property
    def gpus_per_node(self) -> int:
        return max(self.size.gpus_by_node, default=0)


def this_machine() -> PlannedCluster:
    """What a run without RAY_ADDRESS would start Ray on."""
    import torch

    num_gpus = torch.cuda.device_count()
    return PlannedCluster(
        size=ClusterSize(num_cpus=max(2, os.cpu_count() or 2), num_gpus=num_gpus, gpus_by_node=(num_gpus,)),
        gpu_bytes=torch.cuda.get_device_properties(0).total_memory if num_gpus else 0,
    )


def described(*, gpus: int, gpu_memory_gb: float, nodes: int, cpus: int | None = None) -> PlannedCluster:
    """Args: gpus, cpus: of each node; by default each has as many CPUs as this machine."""
    num_cpus = cpus or os.cpu_count() or 1
    return PlannedCluster(
        size=ClusterSize(num_cpus=nodes * num_cpus, num_gpus=nodes * gpus, gpus_by_node=(gpus,) * nodes),
        gpu_bytes=int(gpu_memory_gb * 1e9),
        is_this_machine=False,
    )


def planned_ranks(engine: EngineSpec, config: ModelConfig, cluster: PlannedCluster) -> int:
    """As `expert_ranks_of`, on that cluster.

    Raises ValueError where no node has so many GPUs, or none holds the checkpoint.
    """

    def fewest(gpus_per_node: int) -> int:
        from model.memory_plan import fewest_ranks
        from pipeline.label import resolve_dtype

        dtype = resolve_dtype(engine.dtype, "cuda")
        memory = fewest_ranks(config, device_bytes=cluster.gpu_bytes, gpus_per_node=gpus_per_node, dtype=dtype)
        return memory.num_ranks

    return expert_ranks_of(engine, cluster.size, fewest=fewest)


def parts_of(placement: Placement, cluster: PlannedCluster) -> dict[str, Any]:
    """The parts of the cluster that a run would use."""
    return {
        "cluster": cluster.name,
        "num_nodes": len(cluster.size.gpus_by_node),
        "num_cpus": cluster.size.num_cpus,
        "num_gpus": cluster.size.num_gpus,
        "num_gpus_used": placement.num_label_actors * placement.label_num_gpus,
        **asdict(placement),
    }


def memory_of(job: JobSpec, config: ModelConfig, ranks: int, cluster: PlannedCluster, *, max_tokens: int) -> Any:
    """Of one rank, in bytes, with what it has room for.

    Args: max_tokens: of the longest sequence that was seen, or 0; then sequences are taken to fill the context.
    """
    from model.memory_plan import USABLE_FRACTION, rank_memory
    from pipeline.label import resolve_dtype

    on_gpu = cluster.gpus_per_node > 0 and job.engine.device != "cpu"
    memory = rank_memory(
        config,
        num_ranks=ranks,
        device_bytes=cluster.gpu_bytes if on_gpu else 0,
        dtype=resolve_dtype(job.engine.dtype, "cuda" if on_gpu else "cpu"),
        prefill_chunk_tokens=job.engine.prefill_chunk_tokens,
    )
    found = {**asdict(memory), "weight_bytes": memory.weight_bytes}
    if not on_gpu:
        del found["device_bytes"]
        return {**found, "note": CPU_MEMORY_NOTE}
    length = max_tokens or config.language.max_position_embeddings
    return {
        **found,
        "usable_fraction": USABLE_FRACTION,
        "cache_bytes": memory.cache_bytes,
        "cache_tokens": memory.cache_tokens,
        "tokens_per_sequence": length,
        "sequences_at_once": min(job.engine.max_num_sequences, memory.cache_tokens // length),
        "note": ONE_RANK_NOTE if ranks == 1 else f"the experts of a replica are spread over {ranks} GPUs of a node",
    }
