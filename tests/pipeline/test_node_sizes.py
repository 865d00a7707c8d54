"""Sizes of machines for a job: what runs on them fits them, and they follow the job's limits and ranks."""

import itertools

import pytest

from pipeline.node_sizes import ClusterSizes, GpuNodes, cluster_sizes
from schemas.job import JobSpec


def job(**values: object) -> JobSpec:
    return JobSpec.model_validate(
        {"name": "n", "source": "s3://b/in", "output": "s3://b/out", "recipes": ["ocr"], **values}
    )


def sizes(gpus_per_node: int = 8, num_nodes: int = 1, **values: object) -> ClusterSizes:
    return cluster_sizes(job(**values), GpuNodes(num_nodes=num_nodes, gpus_per_node=gpus_per_node))


@pytest.mark.parametrize(("gpus", "nodes", "ranks"), itertools.product((1, 2, 8), (1, 3), (1, 2, 8)))
def test_what_a_run_reserves_fits_its_machines_and_leaves_a_cpu_free(gpus: int, nodes: int, ranks: int):
    if ranks > gpus:
        with pytest.raises(ValueError, match=f"expert_ranks is {ranks}"):
            sizes(gpus, nodes, engine={"expert_ranks": ranks})
        return
    found = sizes(gpus, nodes, engine={"expert_ranks": ranks})
    placement, labeling = found.placement, found.labeling
    assert labeling is not None
    assert placement.num_label_actors == nodes * (gpus // ranks)
    assert placement.label_num_cpus * (gpus // ranks) <= labeling.ray_num_cpus <= labeling.num_cpus
    tiling_cpus = found.tiling.num_nodes * found.tiling.ray_num_cpus
    reserved = placement.num_tile_actors * placement.tile_num_cpus + placement.fetch_num_cpus + placement.task_num_cpus
    assert reserved + 1 <= tiling_cpus


def test_ranks_of_one_replica_share_its_weights():
    alone, spread = (sizes(engine={"expert_ranks": ranks}) for ranks in (1, 8))
    assert alone.labeling is not None
    assert spread.labeling is not None
    assert spread.memory.expert_bytes * 8 == alone.memory.expert_bytes
    assert (alone.labeling.ray_num_cpus, spread.labeling.ray_num_cpus) == (8, 1)


def test_memory_for_tiling_follows_what_one_image_may_take():
    small, large = (sizes(limits={"decode_memory_mb": megabytes}).tiling.memory_gb for megabytes in (1024, 8192))
    assert large > small + 40, "63 tile actors, of which eight decode an image of 8 GiB, and no longer one of 1 GiB"


def test_machines_that_label_on_cpus_hold_the_weights_and_need_no_gpu():
    found = sizes(engine={"device": "cpu"})
    assert found.labeling is None
    assert found.placement.label_num_gpus == 0
    assert found.memory.device_bytes == 0
    assert (found.head.num_gpus, found.tiling.num_gpus) == (0, 0)


def test_gpus_that_do_not_hold_the_checkpoint_are_refused_with_the_figures():
    with pytest.raises(ValueError, match="GB of weights"):
        cluster_sizes(job(), GpuNodes(gpus_per_node=1, gpu_memory_gb=0.2))
