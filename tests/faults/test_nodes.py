"""A cluster of several nodes on this machine, one of which goes away in the middle of a run."""

import subprocess
import time
from pathlib import Path

import pytest
from PIL import Image
from ray.cluster_utils import Cluster

from tests.command import COMMAND, labelmill, write_job
from tests.faults.disturbed import assert_same_dataset

pytestmark = pytest.mark.faults

NUM_IMAGES = 96


@pytest.fixture
def cluster(monkeypatch):
    """A head and two more nodes with two CPUs each."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        yield nodes
    finally:
        nodes.shutdown()


def job_at(folder: Path, source: Path) -> Path:
    folder.mkdir()
    recipes = [{"name": "qa", "questions": [f"How many? {index}" for index in range(8)], "max_new_tokens": 6}]
    resources = {"tile_actors": 2, "label_actors": 2}
    return write_job(folder, source=str(source), output=str(folder / "out"), recipes=recipes, resources=resources)


def test_node_that_goes_away_costs_no_row(tmp_path, cluster, monkeypatch):
    source = tmp_path / "in"
    source.mkdir()
    for index in range(NUM_IMAGES):
        Image.new("RGB", (120 + index, 90), (2 * index, 60, 60)).save(source / f"{index:03d}.png")
    others = [cluster.add_node(num_cpus=2) for _ in range(2)]
    cluster.wait_for_nodes()
    monkeypatch.setenv("RAY_ADDRESS", cluster.address)

    job = job_at(tmp_path / "disturbed", source)
    process = subprocess.Popen([COMMAND, "run", job], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True)
    output = tmp_path / "disturbed" / "out"
    while not list(output.glob("_run/commits/*/*.json")):
        assert process.poll() is None, process.communicate()[1]
        time.sleep(0.1)
    for node in others:
        cluster.remove_node(node, allow_graceful=False)
    _, stderr = process.communicate(timeout=300)
    assert process.returncode == 0, stderr

    monkeypatch.delenv("RAY_ADDRESS")
    monkeypatch.delenv("RAY_AUTH_MODE")
    undisturbed = labelmill("run", job_at(tmp_path / "undisturbed", source))
    assert undisturbed.code == 0, undisturbed.stderr
    assert_same_dataset(str(output), str(tmp_path / "undisturbed" / "out"))
