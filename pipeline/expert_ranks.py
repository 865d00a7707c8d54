"""A job's `engine.expert_ranks` and a cluster -> over how many GPUs of a node the experts of one replica are spread.

Where it is `auto`, a GPU of the cluster is asked how much memory it has: the driver may have none.
"""

import ray

from pipeline.placement import ClusterSize
from schemas.job import EngineSpec


def expert_ranks(engine: EngineSpec, checkpoint: str, size: ClusterSize) -> int:
    """As few as hold the checkpoint and a cache worth having; 1 without GPUs, unless the job says otherwise.

    Raises ValueError where no node has so many GPUs, or none holds the checkpoint.
    """
    gpus = [num_gpus for num_gpus in size.gpus_by_node if num_gpus]
    on_gpu = bool(gpus) and engine.device != "cpu"
    if engine.expert_ranks != "auto":
        if on_gpu and engine.expert_ranks > max(gpus):
            raise ValueError(
                f"engine.expert_ranks is {engine.expert_ranks}, but no node of the cluster has more than {max(gpus)} "
                "GPUs: the ranks of a replica run on one node"
            )
        return engine.expert_ranks
    if not on_gpu:
        return 1
    ask = ray.remote(num_gpus=1, num_cpus=0, max_retries=3)(_fewest)
    return int(ray.get(ask.remote(checkpoint, engine.dtype, min(gpus))))


def _fewest(checkpoint: str, dtype: str, gpus_per_node: int) -> int:
    """On a worker with a GPU."""
    import torch

    from model.checkpoint_files import local_folder
    from model.config import load_model_config
    from model.memory_plan import fewest_ranks
    from pipeline.label import resolve_dtype

    config = load_model_config(local_folder(checkpoint, weights=False))
    device_bytes = torch.cuda.get_device_properties(0).total_memory
    wanted = resolve_dtype(dtype, "cuda")  # type: ignore[arg-type]
    return fewest_ranks(config, device_bytes=device_bytes, gpus_per_node=gpus_per_node, dtype=wanted).num_ranks
