import pytest

from pipeline.cluster import StopSignal
from pipeline.label_images import ListPending
from pipeline.placement import BLOCKS_IN_FLIGHT, ClusterSize, Placement, expert_ranks_of
from schemas.job import EngineSpec, ResourcesSpec
from schemas.rows import rows_of
from tests.pipeline.outputs import commit_all, job_of, put_images, resolve


@pytest.fixture
def work(tmp_path):
    """Two shards of the manifest; the image of the first one is labelled."""
    source = put_images(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg")
    commit_all(resolve(job_of(source, tmp_path / "out"), limit=1))
    return resolve(job_of(source, tmp_path / "out"))


def listed(work, *shards):
    stage = ListPending(folder=work.folder, wanted=work.wanted, stop=StopSignal("nobody"))
    return [[row.image_uri[-5:] for row in rows_of(block)] for block in stage({"shard": list(shards)})]


def test_pending_rows_of_a_shard_are_listed(work):
    assert listed(work, work.shards[1]) == [["b.jpg", "c.jpg"]]


def test_shard_without_pending_rows_gives_no_block(work):
    """A block of empty columns would have none of their types."""
    assert listed(work, work.shards[0]) == []
    assert listed(work, *work.shards) == [["b.jpg", "c.jpg"]]


@pytest.mark.parametrize("num_cpus", [2, 3, 4, 8, 64])
@pytest.mark.parametrize("num_gpus", [0, 1, 8])
@pytest.mark.parametrize("actors", ["auto", 1, 7])
def test_one_whole_cpu_stays_free(num_cpus, num_gpus, actors):
    """Ray's repartition waits for one for ever."""
    size = ClusterSize(num_cpus=num_cpus, num_gpus=num_gpus, gpus_by_node=(num_gpus,))
    placement = Placement.for_cluster(size, ResourcesSpec(tile_actors=actors, label_actors=actors))
    reserved = (
        placement.fetch_num_cpus
        + placement.num_tile_actors * placement.tile_num_cpus
        + placement.num_label_actors * placement.label_num_cpus
    )
    assert reserved + placement.task_num_cpus <= num_cpus - 1 + 0.01


def test_every_gpu_gets_a_label_actor():
    placement = Placement.for_cluster(ClusterSize(num_cpus=32, num_gpus=4, gpus_by_node=(4,)), ResourcesSpec())
    assert (placement.num_label_actors, placement.label_num_gpus) == (4, 1.0)


def test_without_a_gpu_half_of_the_cores_work_on_labels():
    placement = Placement.for_cluster(ClusterSize(num_cpus=8, num_gpus=0), ResourcesSpec())
    assert (placement.num_label_actors, placement.label_num_gpus, placement.label_num_threads) == (1, 0.0, 4)


def test_numbers_of_the_job_are_taken():
    size = ClusterSize(num_cpus=8, num_gpus=2, gpus_by_node=(2,))
    placement = Placement.for_cluster(size, ResourcesSpec(tile_actors=5, label_actors=1))
    assert (placement.num_tile_actors, placement.num_label_actors) == (5, 1)


def test_pool_grows_to_what_the_job_allows():
    size = ClusterSize(num_cpus=16, num_gpus=2, gpus_by_node=(2,))
    grows = Placement.for_cluster(size, ResourcesSpec(max_label_actors=8))
    assert (grows.num_label_actors, grows.max_label_actors) == (2, 8)
    assert grows.rows_per_block(128) == 128 // (8 * BLOCKS_IN_FLIGHT)


def test_pool_that_is_as_large_as_it_may_be_does_not_grow():
    size = ClusterSize(num_cpus=16, num_gpus=4, gpus_by_node=(4,))
    capped = Placement.for_cluster(size, ResourcesSpec(max_label_actors=2))
    assert (capped.num_label_actors, capped.max_label_actors) == (2, 0)


def test_replicas_wait_for_gpus_where_the_job_demands_them():
    size = ClusterSize(num_cpus=8, num_gpus=0, gpus_by_node=(0, 0))
    waits = Placement.for_cluster(size, ResourcesSpec(max_label_actors=4), expert_ranks=2, needs_gpu=True)
    assert (waits.num_label_actors, waits.label_num_gpus, waits.max_label_actors) == (1, 2.0, 4)


def test_gpus_that_are_still_to_come_cannot_be_asked_how_many_ranks_they_hold():
    size = ClusterSize(num_cpus=8, num_gpus=0, gpus_by_node=(0,))
    with pytest.raises(ValueError, match="no GPU yet"):
        expert_ranks_of(EngineSpec(device="cuda"), size, fewest=lambda gpus: 1)
    assert expert_ranks_of(EngineSpec(device="cuda", expert_ranks=4), size, fewest=lambda gpus: 1) == 4
