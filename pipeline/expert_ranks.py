"""A job's `engine.expert_ranks` and a cluster -> over how many GPUs of a node the experts of one replica are spread.

Where it is `auto`, a GPU of the cluster is asked how much memory it has: the driver may have none.
"""

import ray

from pipeline.placement import ClusterSize, expert_ranks_of
from schemas.job import EngineSpec


def expert_ranks(engine: EngineSpec, checkpoint: str, size: ClusterSize) -> int:
    """As `expert_ranks_of`, on this cluster.

    Raises ValueError where no node has so many GPUs, or none holds the checkpoint.
    """

    def fewest(gpus_per_node: int) -> int:
        ask = ray.remote(num_gpus=1, num_cpus=0, max_retries=3)(_fewest)
        return int(ray.get(ask.remote(checkpoint, engine.dtype, gpus_per_node)))

    return expert_ranks_of(engine, size, fewest=fewest)


def _fewest(checkpoint: str, dtype: str, gpus_per_node: int) -> int:
    """On a worker with a GPU."""
    import torch

    from model.checkpoint_files import local_folder
    from model.config_files import load_model_config
    from model.memory_plan import fewest_ranks
    from pipeline.label import resolve_dtype

    config = load_model_config(local_folder(checkpoint, weights=False))
    device_bytes = torch.cuda.get_device_properties(0).total_memory
    wanted = resolve_dtype(dtype, "cuda")  # type: ignore[arg-type]
    return fewest_ranks(config, device_bytes=device_bytes, gpus_per_node=gpus_per_node, dtype=wanted).num_ranks
