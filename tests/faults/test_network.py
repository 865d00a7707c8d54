"""A cluster of three machines with networks of their own: one tiles, two label with replicas of two ranks each. The
cable of one is pulled in the middle of a job, and another machine joins; images and dataset lie in S3.

The GPUs are what Ray is told of: the ranks run on CPUs.
"""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, ImageDraw

from tests.command import COMMAND, write_job
from tests.faults.disturbed import WORKERS, processes_below
from tests.faults.namespaces import GCS_PORT, machines, store_at, why_not

pytestmark = pytest.mark.faults

NUM_IMAGES = 400
"""So many that the job still runs when Ray has given up the lost machine and the joining one has started its ranks."""
RANK_TITLE = r".*-m model\.rank_process .*"
REASON = why_not()

MAKE_BUCKET = "import boto3; boto3.session.Session().client('s3').create_bucket(Bucket='lake')"
PUT_IMAGES = """
import sys, pathlib
from pipeline.storage import open_store
for path in sorted(pathlib.Path(sys.argv[1]).iterdir()):
    open_store("s3://lake").put(f"s3://lake/in/{path.name}", path.read_bytes())
"""
HAS_COMMITS = """
from pipeline.storage import open_store
next(iter(open_store("s3://lake").list_or_empty("s3://lake/out/_run/commits")))
"""
COMPARE = """
from tests.faults.disturbed import assert_same_dataset
assert_same_dataset("s3://lake/out", "s3://lake/alone")
"""


def job_file(folder: Path, *, output: str, replicas: int, ranks: int) -> Path:
    folder.mkdir()
    questions = [f"How many shapes are there? {index}" for index in range(6)]
    return write_job(
        folder,
        source="s3://lake/in/",
        output=output,
        recipes=[{"name": "qa", "questions": questions, "max_new_tokens": 6}],
        engine={"device": "cpu", "expert_ranks": ranks},
        resources={"tile_actors": 1, "label_actors": replicas},
    )


def until(what: Callable[[], bool], *processes: "subprocess.Popen[str]", timeout_s: float = 300) -> None:
    deadline = time.monotonic() + timeout_s
    while not what():
        for process in processes:
            assert process.poll() is None, process.communicate()[1]
        assert time.monotonic() < deadline
        time.sleep(0.2)


def ranks_on(node: "subprocess.Popen[str]") -> list[int]:
    return processes_below(node.pid, RANK_TITLE)


@pytest.mark.skipif(REASON is not None, reason=str(REASON))
def test_job_goes_on_when_the_cable_of_a_machine_is_pulled_and_another_joins(tmp_path, monkeypatch):
    images = tmp_path / "in"
    images.mkdir()
    for index in range(NUM_IMAGES):
        image = Image.new("RGB", (120 + index, 90), "white")
        ImageDraw.Draw(image).ellipse((20, 10, 80, 70), fill=("red", "blue", "green")[index % 3])
        image.save(images / f"{index:03d}.png")
    with machines(["head", "first", "second", "joining"]) as network, store_at(network["hub"]) as endpoint:
        head = network["head"]
        address = f"{head.address}:{GCS_PORT}"
        cluster = {
            "RAY_AUTH_MODE": "disabled",
            "RAY_health_check_initial_delay_ms": "2000",
            "RAY_health_check_period_ms": "1000",
            "RAY_health_check_timeout_ms": "2000",
            "RAY_health_check_failure_threshold": "3",
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": "testing",
            "AWS_SECRET_ACCESS_KEY": "testing",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }
        of_head = ("--head", f"--port={GCS_PORT}", "--num-cpus=4", "--num-gpus=0", "--include-dashboard=false")
        head.start_ray(*of_head, environment=cluster)
        until(lambda: head.python(MAKE_BUCKET, environment=cluster) is None)
        assert head.python(PUT_IMAGES, images, environment=cluster) is None

        def join(name: str) -> "subprocess.Popen[str]":
            return network[name].start_ray(f"--address={address}", "--num-cpus=1", "--num-gpus=2", environment=cluster)

        nodes = {name: join(name) for name in ("first", "second")}
        job = job_file(tmp_path / "cluster", output="s3://lake/out", replicas=2, ranks=2)
        run = head.start(
            *(COMMAND, "run", job),
            environment={**cluster, "RAY_ADDRESS": address},
            stderr=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
        )
        until(lambda: len(ranks_on(nodes["first"])) == len(ranks_on(nodes["second"])) == 2, run)
        assert not processes_below(nodes["first"].pid, WORKERS["tile actor"])
        until(lambda: head.python(HAS_COMMITS, environment=cluster) is None, run)
        network["first"].unplug()
        nodes["joining"] = join("joining")
        until(lambda: len(ranks_on(nodes["joining"])) == 2 or run.poll() is not None)
        assert run.poll() is None, "the job had ended before the machine that joined took part"
        _, stderr = run.communicate(timeout=400)
        assert run.returncode == 0, stderr

        alone = job_file(tmp_path / "alone", output="s3://lake/alone", replicas=1, ranks=1)
        calm = head.start(COMMAND, "run", alone, environment=cluster, stderr=subprocess.PIPE)
        assert calm.wait(timeout=300) == 0, calm.communicate()[1]
        difference = head.python(COMPARE, environment=cluster)
        assert difference is None, difference
