"""A cluster of unlike nodes on this machine: images are tiled on one without GPUs, and replicas of two ranks label on
two with GPUs, of which one goes away and another comes in the middle of the run.

The GPUs are what Ray is told of: the ranks run on CPUs.
"""

import subprocess
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from PIL import Image, ImageDraw
from ray.cluster_utils import Cluster

from tests.command import COMMAND, labelmill, write_job
from tests.faults.disturbed import WORKERS, assert_same_dataset, processes_below

pytestmark = pytest.mark.faults

NUM_IMAGES = 800
"""So many that the job still runs when the node that joins has started its ranks."""
RANK_TITLE = r".*-m model\.rank_process .*"
GPU_NODE = {"num_cpus": 1, "num_gpus": 2}


@pytest.fixture
def cluster(monkeypatch):
    """Its head has CPUs enough for all but the replicas."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 4, "num_gpus": 0, "include_dashboard": False})
    try:
        yield nodes
    finally:
        nodes.shutdown()


def draw_images(folder: Path) -> Path:
    folder.mkdir()
    for index in range(NUM_IMAGES):
        image = Image.new("RGB", (120 + index % 240, 90), "white")
        ImageDraw.Draw(image).ellipse((20, 10, 80, 70), fill=("red", "blue", "green")[index % 3])
        image.save(folder / f"{index:03d}.png")
    return folder


def job_at(folder: Path, source: Path, *, ranks: int, **resources: int) -> Path:
    folder.mkdir()
    questions = [f"How many shapes are there? {index}" for index in range(6)]
    return write_job(
        folder,
        source=str(source),
        output=str(folder / "out"),
        recipes=[{"name": "qa", "questions": questions, "max_new_tokens": 6}],
        engine={"device": "cpu", "expert_ranks": ranks},
        resources={"tile_actors": 1, **resources},
    )


def raylet_pid(node: object) -> int:
    (raylet,) = node.all_processes["raylet"]  # type: ignore[attr-defined]
    return raylet.process.pid


@dataclass
class Seen:
    """On which nodes workers of each kind were seen so far."""

    nodes_of: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))

    def look(self, nodes: dict[str, object]) -> None:
        for name, node in nodes.items():
            for kind in ("tile actor", "label actor"):
                if processes_below(raylet_pid(node), WORKERS[kind]):
                    self.nodes_of[kind].add(name)
        time.sleep(0.05)

    def num_ranks(self, nodes: list[object]) -> list[int]:
        return [len(processes_below(raylet_pid(node), RANK_TITLE)) for node in nodes]


def is_rank(pid: int) -> bool:
    try:
        return b"rank_process" in Path(f"/proc/{pid}/cmdline").read_bytes()
    except OSError:
        return False


def test_replicas_of_two_ranks_on_two_nodes_label_what_one_process_does(tmp_path, cluster, monkeypatch):
    source = draw_images(tmp_path / "in")
    with_gpus = [cluster.add_node(**GPU_NODE) for _ in range(2)]
    cluster.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)

    job = job_at(tmp_path / "cluster", source, ranks=2, label_actors=2)
    process = subprocess.Popen([COMMAND, "run", job], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    output = tmp_path / "cluster" / "out"
    seen = Seen()
    while not (seen.num_ranks(with_gpus) == [2, 2] and list(output.glob("_run/commits/*/*.json"))):
        assert process.poll() is None, process.communicate()[1]
        seen.look({"head": cluster.head_node, "first": with_gpus[0], "second": with_gpus[1]})
    ranks = [pid for node in with_gpus for pid in processes_below(raylet_pid(node), RANK_TITLE)]
    cluster.remove_node(with_gpus[0], allow_graceful=False)
    joined = cluster.add_node(**GPU_NODE)
    while process.poll() is None:
        seen.look({"head": cluster.head_node, "second": with_gpus[1], "joined": joined})
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert seen.nodes_of["tile actor"] == {"head"}
    assert seen.nodes_of["label actor"] == {"first", "second", "joined"}
    assert not [pid for pid in ranks if is_rank(pid)]

    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.delenv("RAY_AUTH_MODE")
    alone = labelmill("run", job_at(tmp_path / "alone", source, ranks=1, label_actors=1))
    assert alone.code == 0, alone.stderr
    assert_same_dataset(str(output), str(tmp_path / "alone" / "out"))


def test_pool_grows_onto_a_node_that_joins(tmp_path, cluster, monkeypatch):
    source = draw_images(tmp_path / "in")
    first = cluster.add_node(**GPU_NODE)
    cluster.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)
    job = job_at(tmp_path / "cluster", source, ranks=2, label_actors=1, max_label_actors=2)
    process = subprocess.Popen([COMMAND, "run", job], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    seen = Seen()
    while seen.num_ranks([first]) != [2]:
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.2)
    joined = cluster.add_node(**GPU_NODE)
    while process.poll() is None:
        seen.look({"first": first, "joined": joined})
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr
    assert seen.nodes_of["label actor"] == {"first", "joined"}
    assert labelmill("verify", tmp_path / "cluster" / "out").code == 0
