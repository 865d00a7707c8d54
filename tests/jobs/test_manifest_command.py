"""`labelmill manifest`: documents that KubeRay's schemas take whole, that follow the job, and hold nothing secret."""

import copy
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from jobs.kubernetes.names import MAX_LENGTH, resource_name
from jobs.kubernetes.run_script import JOB_FOLDER, PID_FILE, run_script, stop_run
from model import checkpoint_files
from tests.command import Finished, assert_one_clear_line, labelmill_here, write_job
from tests.kubernetes_schemas import errors, pod_template_validator, validator

Document = dict[str, Any]
NIGHTLY = ("--schedule", "0 2 * * *")
MINE = """
name: mine
about: What I want to know.
table: captions
steps:
  - prompts: ["Say it."]
"""


def job_in(folder: Path, **values: Any) -> Path:
    defaults = {"source": "s3://bucket/in", "output": "s3://bucket/out", "recipes": ["ocr"]}
    return write_job(folder, **{**defaults, **values})


def manifest(job: Path, *options: object) -> list[Document]:
    done = labelmill_here("manifest", job, *options)
    assert done.code == 0, done
    return list(yaml.safe_load_all(done.stdout))


def of_kind(documents: list[Document], kind: str) -> Document:
    (found,) = (document for document in documents if document["kind"] == kind)
    return found


def groups_of(ray_job: Document) -> dict[str, Document]:
    cluster = ray_job["spec"]["rayClusterSpec"]
    return {"head": cluster["headGroupSpec"], **{group["groupName"]: group for group in cluster["workerGroupSpecs"]}}


def container_of(group: Document) -> Document:
    (container,) = group["template"]["spec"]["containers"]
    return container


def ranks(number: int) -> dict[str, Any]:
    return {"engine": {"expert_ranks": number}}


@pytest.mark.parametrize("number", [1, 8])
@pytest.mark.parametrize(("kind", "options"), [("RayJob", ()), ("RayCronJob", (*NIGHTLY, "--time-zone", "Asia/Tokyo"))])
def test_kuberays_schemas_take_every_field(tmp_path: Path, number: int, kind: str, options: tuple[str, ...]):
    job = job_in(tmp_path, **ranks(number))
    document = of_kind(manifest(job, "--gpus-per-node", 8, "--namespace", "labels", *options), kind)
    assert errors(validator(kind), document) == []


@pytest.mark.parametrize(
    "path",
    [
        ("spec", "entryPoint"),
        ("spec", "rayClusterSpec", "headGroupSpec", "rayStartParameters"),
        ("spec", "rayClusterSpec", "workerGroupSpecs", 1, "replica"),
        ("spec", "rayClusterSpec", "workerGroupSpecs", 1, "template", "spec", "terminationGracePeriod"),
        ("spec", "rayClusterSpec", "workerGroupSpecs", 1, "template", "spec", "containers", 0, "lifecycle", "prestop"),
    ],
    ids=lambda path: ".".join(map(str, path)),
)
def test_field_that_the_api_server_would_drop_is_an_error_here(tmp_path: Path, path: tuple[Any, ...]):
    document = of_kind(manifest(job_in(tmp_path)), "RayJob")
    place = copy.deepcopy(document)
    found = place
    for key in path[:-1]:
        found = found[key]
    found[path[-1]] = "x"
    assert len(errors(validator("RayJob"), place)) == 1


def test_cron_job_creates_a_ray_job_that_the_schema_takes(tmp_path: Path):
    documents = manifest(job_in(tmp_path), *NIGHTLY, "--cronjob", "--queue", "gpus", "--namespace", "labels")
    assert [document["kind"] for document in documents] == [
        *("ConfigMap", "ConfigMap", "ServiceAccount", "Role", "RoleBinding", "CronJob"),
    ]
    spec = of_kind(documents, "CronJob")["spec"]
    assert errors(pod_template_validator(), spec["jobTemplate"]["spec"]["template"]) == []
    assert set(spec) == {"schedule", "concurrencyPolicy", "jobTemplate"}
    ray_job = yaml.safe_load(documents[1]["data"]["rayjob.yaml"])
    assert errors(validator("RayJob"), ray_job) == []
    assert ray_job["metadata"]["generateName"] == "test-"
    assert ray_job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert of_kind(documents, "Role")["rules"][0]["verbs"] == ["create"]


def test_head_has_no_gpus_and_one_group_tiles_and_one_labels(tmp_path: Path):
    groups = groups_of(
        of_kind(manifest(job_in(tmp_path, **ranks(4)), "--gpus-per-node", 8, "--gpu-nodes", 3), "RayJob")
    )
    assert {name: group["rayStartParams"]["num-gpus"] for name, group in groups.items()} == {
        "head": "0",
        "tiling": "0",
        "labeling": "8",
    }
    assert groups["head"]["rayStartParams"]["num-cpus"] == "0"
    assert groups["labeling"]["rayStartParams"]["num-cpus"] == "2", "one for each replica of four ranks"
    assert [groups["labeling"][key] for key in ("replicas", "minReplicas", "maxReplicas")] == [3, 3, 3]
    assert container_of(groups["labeling"])["resources"]["limits"]["nvidia.com/gpu"] == "8"
    assert "nvidia.com/gpu" not in container_of(groups["tiling"])["resources"]["limits"]


def test_cluster_takes_requests_with_its_token_only(tmp_path: Path):
    ray_job = of_kind(manifest(job_in(tmp_path)), "RayJob")
    assert ray_job["spec"]["rayClusterSpec"]["authOptions"] == {"mode": "token"}


def test_secret_is_named_and_not_read(tmp_path: Path):
    ray_job = of_kind(manifest(job_in(tmp_path), "--secret", "store-keys"), "RayJob")
    for group in groups_of(ray_job).values():
        assert container_of(group)["envFrom"] == [{"secretRef": {"name": "store-keys"}}]
    assert errors(validator("RayJob"), ray_job) == []


def test_volumes_are_mounted_in_every_pod_and_take_the_output_whatever_their_claims_are_called(tmp_path: Path):
    job = job_in(tmp_path, source="/data/photos/in", output="/data/labels")
    folder_of_claim = {"shared.claim": "/data", "shared-claim": "/more", "x" * 80 + "1": "/one", "x" * 80 + "2": "/two"}
    options = [word for claim, path in folder_of_claim.items() for word in ("--volume", f"{claim}:{path}")]
    ray_job = of_kind(manifest(job, *options), "RayJob")
    for group in groups_of(ray_job).values():
        paths = {one["name"]: one["mountPath"] for one in container_of(group)["volumeMounts"]}
        volumes = {one["name"]: one.get("persistentVolumeClaim") for one in group["template"]["spec"]["volumes"]}
        mounted = {claim["claimName"]: paths[name] for name, claim in volumes.items() if claim}
        assert mounted == folder_of_claim
    assert errors(validator("RayJob"), ray_job) == []


def test_checkpoint_may_be_part_of_the_pods_image(tmp_path: Path):
    folder = Path(checkpoint_files.NANO_FOLDER)
    assert of_kind(manifest(job_in(tmp_path, checkpoint=str(folder))), "RayJob")


def test_job_that_labels_on_cpus_needs_no_gpus(tmp_path: Path):
    ray_job = of_kind(manifest(job_in(tmp_path, engine={"device": "cpu"})), "RayJob")
    assert set(groups_of(ray_job)) == {"head", "tiling"}
    assert errors(validator("RayJob"), ray_job) == []


def test_spot_gpus_are_asked_for_and_the_rest_of_the_cluster_is_not_taken_back(tmp_path: Path):
    spot, safe = (
        groups_of(of_kind(manifest(job_in(tmp_path), *options), "RayJob")) for options in ((), ("--no-spot",))
    )
    assert "affinity" in spot["labeling"]["template"]["spec"]
    assert all("affinity" not in group["template"]["spec"] for group in (spot["head"], spot["tiling"], *safe.values()))
    assert {key["key"] for key in safe["labeling"]["template"]["spec"]["tolerations"]} == {"nvidia.com/gpu"}


def test_pods_are_given_the_time_that_a_stopped_run_may_take(tmp_path: Path):
    ray_job = of_kind(manifest(job_in(tmp_path, resources={"stop_grace_s": 100})), "RayJob")
    for group in groups_of(ray_job).values():
        assert group["template"]["spec"]["terminationGracePeriodSeconds"] == 130
        assert {"name": "RAY_JOB_STOP_WAIT_TIME_S", "value": "130"} in container_of(group)["env"]


@pytest.mark.parametrize(
    "change",
    [
        {"output": "s3://bucket/elsewhere"},
        {"recipes": ["caption"]},
        {"engine": {"expert_ranks": 2}},
        {"limits": {"decode_memory_mb": 16384}},
        {"resources": {"stop_grace_s": 60}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_change_of_the_job_changes_the_manifest(tmp_path: Path, change: dict[str, Any]):
    before = manifest(job_in(tmp_path), "--gpus-per-node", 2)
    assert manifest(job_in(tmp_path), "--gpus-per-node", 2) == before
    assert manifest(job_in(tmp_path, **change), "--gpus-per-node", 2) != before


def test_what_is_set_on_the_command_line_reaches_the_run(tmp_path: Path):
    job = job_in(tmp_path, recipes=[{"name": "ocr"}])
    script = manifest(job, "--set", "recipes.ocr.seed=3")[0]["data"]["run.sh"]
    assert "exec labelmill run job.yaml --set recipes.ocr.seed=3" in script


def test_recipe_files_of_the_users_own_travel_with_the_job(tmp_path: Path):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "mine.yaml").write_text(MINE)
    config_map, ray_job = manifest(job_in(tmp_path, recipes=["recipes/mine.yaml"]))
    (volume,) = (one for one in groups_of(ray_job)["head"]["template"]["spec"]["volumes"] if one["name"] == "job")
    placed = {item["path"]: config_map["data"][item["key"]] for item in volume["configMap"]["items"]}
    assert placed == {"job.yaml": (tmp_path / "job.yaml").read_text(), "recipes/mine.yaml": MINE}


@pytest.mark.parametrize(
    ("values", "options", "code", "fragments"),
    [
        ({"source": "photos"}, [], 1, ["source.uri is photos"]),
        ({}, ["--env", "AWS_SECRET_ACCESS_KEY=x"], 2, ["AWS_SECRET_ACCESS_KEY", "service account"]),
        ({}, ["--env", "novalue"], 2, ["NAME=VALUE"]),
        ({"source": "/home/me/in"}, [], 1, ["source.uri is /home/me/in", "--volume CLAIM:/home/me"]),
        ({"output": "/home/me/out"}, [], 1, ["output is /home/me/out", "--volume CLAIM:/home/me/out"]),
        ({"output": "/data-of-mine/out"}, ["--volume", "c:/data"], 1, ["output is /data-of-mine/out"]),
        ({}, ["--volume", "/data"], 2, ["CLAIM:/FOLDER"]),
        ({}, ["--volume", "claim:data"], 2, ["CLAIM:/FOLDER"]),
        ({}, ["--volume", "c:/data", "--volume", "d:/data/in"], 2, ["lie in each other"]),
        ({}, ["--volume", "c:/etc"], 2, ["lie in each other", "/etc/labelmill"]),
        ({}, ["--cronjob"], 2, ["--schedule"]),
        ({}, ["--schedule", "every night"], 2, ["five fields"]),
        ({}, [*NIGHTLY, "--queue", "gpus"], 2, ["--cronjob"]),
        ({"engine": {"expert_ranks": 8}}, ["--gpus-per-node", "4"], 1, ["expert_ranks is 8", "4 GPUs"]),
        ({}, ["--gpu-memory-gb", "0.2"], 1, ["larger GPUs"]),
        ({"recipes": ["capshun"]}, [], 2, ["caption"]),
        ({"recipes": [{"name": "qa", "questions": ["?" * 1_100_000]}]}, [], 1, ["config map"]),
    ],
    ids=[
        *("relative source", "credential", "env", "local source", "local output", "beside the volume"),
        *("no folder", "relative folder", "nested volumes", "folder in use"),
        *("cronjob", "schedule", "queue", "ranks", "memory", "typo", "size"),
    ],
)
def test_mistakes_are_told_in_one_line_and_nothing_is_printed(tmp_path, values, options, code, fragments):
    done = labelmill_here("manifest", job_in(tmp_path, **values), *options)
    assert_one_clear_line(done, *fragments, code=code)
    assert done.stdout == ""


def test_no_credential_of_the_environment_is_in_a_manifest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "HF_TOKEN", "RAY_AUTH_TOKEN"):
        monkeypatch.setenv(name, "recognisable")
    assert "recognisable" not in labelmill_here("manifest", job_in(tmp_path), *NIGHTLY, "--cronjob").stdout


@pytest.mark.parametrize("name", ["photos", "My_Photos.2", "2024", "a" * 80, "-".join("x" * 30)])
def test_names_become_dns_labels_and_stay_different(name: str):
    made = resource_name(name)
    assert len(made) <= MAX_LENGTH
    assert made[0].isalpha()
    assert made[-1].isalnum()
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert (made == name) == (name == "photos")
    assert resource_name(f"{name}x") != made


class Node:
    """The script of a manifest, in folders of the test's, with a `labelmill` that does as told."""

    def __init__(self, folder: Path, command: str) -> None:
        (folder / "labelmill").write_text(f"#!/bin/sh\n{command}\n")
        (folder / "labelmill").chmod(0o755)
        self.pid_file = folder / "run.pid"
        script = self.placed(run_script("exec labelmill run 'a job.yaml'").replace(JOB_FOLDER, str(folder)))
        self.run = subprocess.Popen(
            ["sh", "-c", script],
            env=os.environ | {"PATH": f"{folder}:{os.environ['PATH']}"},
            stdout=subprocess.PIPE,
            text=True,
        )

    def placed(self, text: str) -> str:
        return text.replace(PID_FILE, str(self.pid_file))

    def ended(self) -> Finished:
        stdout, _ = self.run.communicate(timeout=30)
        return Finished(self.run.returncode, stdout, "")


@pytest.mark.parametrize(("code", "handed_on"), [(0, 0), (1, 1), (2, 2), (3, 0), (4, 0), (130, 130)])
def test_what_a_new_cluster_would_not_mend_is_not_tried_again(tmp_path: Path, code: int, handed_on: int):
    done = Node(tmp_path, f"exit {code}").ended()
    assert done.code == handed_on
    assert ("not to be tried again" in done.stdout) == (code != handed_on)


def test_job_file_with_a_space_in_its_name_stays_one_argument(tmp_path: Path):
    assert Node(tmp_path, 'printf "<%s>" "$@"').ended().stdout == "<run><a job.yaml>"


def test_pod_that_is_ended_lets_the_run_commit_first(tmp_path: Path):
    node = Node(tmp_path, "trap 'sleep 0.5; echo committed; exit 130' TERM\nwhile :; do sleep 0.1; done")
    while not node.pid_file.exists() or not node.pid_file.read_text():
        time.sleep(0.02)
    time.sleep(0.3)  # until the command has set its trap
    hook = [node.placed(part) for part in stop_run()]
    assert subprocess.run(hook, timeout=30, check=False).returncode == 0
    done = node.ended()
    assert (done.code, done.stdout) == (130, "committed\n")


def test_run_hands_on_how_it_ended_when_ray_signals_the_shell_too(tmp_path: Path):
    node = Node(tmp_path, "trap 'exit 130' TERM\nwhile :; do sleep 0.1; done")
    while not node.pid_file.exists() or not node.pid_file.read_text():
        time.sleep(0.02)
    time.sleep(0.3)
    for pid in (node.run.pid, int(node.pid_file.read_text())):
        os.kill(pid, signal.SIGTERM)
    assert node.ended().code == 130


def test_pod_without_a_run_ends_at_once(tmp_path: Path):
    node = Node(tmp_path, "exit 0")
    node.ended()
    hook = [node.placed(part) for part in stop_run()]
    subprocess.run(hook, timeout=10, check=False, capture_output=True)
    assert not node.pid_file.exists()
