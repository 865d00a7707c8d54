"""What the documents for operators show is what there is: commands, kinds of errors, exit codes, files to build from.

What needs a cloud, a cluster or a container engine is held to its form alone: it cannot run on this machine.
"""

import re
import shlex
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from jobs import exit_codes
from schemas.errors import ErrorKind
from tests.command import REPOSITORY, labelmill, labelmill_here, write_job
from tests.pipeline.pictures import encode, four_corners

OPERATIONS = REPOSITORY / "docs" / "operations.md"
INFRA = REPOSITORY / "infra" / "README.md"
CONTAINERFILE = REPOSITORY / "infra" / "Containerfile"
CLUSTERS = sorted((REPOSITORY / "infra").glob("ray-*.yaml"))


def commands(*documents: Path) -> list[list[str]]:
    """Of all blocks of shell, without comments, redirections and what is piped on."""
    blocks = [block for path in documents for block in re.findall(r"```sh\n(.*?)```", path.read_text(), re.DOTALL)]
    lines = [line for block in blocks for line in block.splitlines() if line.strip()]
    split = [shlex.split(line, comments=True) for line in lines]
    return [words[: next((at for at, word in enumerate(words) if word in ("|", ">")), None)] for words in split]


def shown(verb: str) -> list[list[str]]:
    return [words[2:] for words in commands(OPERATIONS, INFRA) if words[:2] == ["labelmill", verb]]


def test_every_manifest_that_is_shown_is_printed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    write_job(tmp_path, source="s3://bucket/in", output="s3://bucket/labels/photos").rename("photos.yaml")
    assert len(shown("manifest")) >= 5
    for words in shown("manifest"):
        done = labelmill_here("manifest", *words)
        assert done.code == 0, (words, done)
        assert list(yaml.safe_load_all(done.stdout))[-1]["kind"] in ("RayJob", "RayCronJob", "CronJob")


@pytest.mark.e2e
def test_commands_that_one_machine_can_run_do_what_is_said(bucket: str, tmp_path: Path, monkeypatch):
    """In the order in which they are shown, on a job of two images, of which one has too many pixels at first."""
    from pipeline.storage import open_store

    store = open_store(bucket)
    for name, width in (("a", 40), ("b", 90)):
        store.put(f"{bucket}/in/{name}.png", encode(four_corners(width, 40), "PNG"))
    monkeypatch.chdir(tmp_path)
    output = f"{bucket}/labels/photos"
    limits = {"max_pixels": 2000, "max_quarantined_fraction": 0.5}
    recipes = [{"name": "ocr", "max_new_tokens": 4}]
    job = write_job(tmp_path, source=f"{bucket}/in", output=output, recipes=recipes, limits=limits)
    job.rename("photos.yaml")
    assert labelmill("run", "photos.yaml", cwd=tmp_path).code == 0
    for verb, told in (("status", "1 too_many_pixels"), ("retry", "quarantine 0"), ("verify", "")):
        (words,) = shown(verb)
        done = labelmill(verb, *(word.replace("s3://bucket/labels/photos", output) for word in words), cwd=tmp_path)
        assert done.code == 0, done
        assert told in done.stdout


@pytest.mark.parametrize("verb", ["plan", "submit", "run", "recipes"])
def test_every_option_of_the_others_exists(verb: str):
    usage = labelmill_here(verb, "--help").stdout
    given = shown(verb) + [
        line.split() for line in re.findall(rf"labelmill {verb} ([^\n#`]*)", OPERATIONS.read_text() + INFRA.read_text())
    ]
    assert given, f"no labelmill {verb} is shown"
    for option in {word for words in given for word in words if word.startswith("--")}:
        assert option in usage, option


def test_every_kind_of_error_and_every_exit_code_has_its_line():
    text = OPERATIONS.read_text()
    tables = [line.split("|")[1] for line in text.splitlines() if line.startswith("| ")]
    kinds = {kind for cell in tables for kind in re.findall(r"`(\w+)`", cell)}
    assert kinds == {kind.value for kind in ErrorKind}
    codes = {int(cell) for cell in tables if cell.strip().isdecimal()}
    assert codes >= {value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")}


def test_every_file_that_a_command_of_others_names_is_there():
    others = [words for words in commands(OPERATIONS, INFRA) if words[0] in ("podman", "ray")]
    named = {word for words in others for word in words if word.startswith("infra/")}
    assert named == {"infra/Containerfile", "infra/ray-aws.yaml"}
    assert all((REPOSITORY / name).exists() for name in named)


@pytest.mark.parametrize("path", CLUSTERS, ids=lambda path: path.name)
def test_cluster_files_are_what_rays_launcher_reads(path: Path):
    config = prepare_config(yaml.safe_load(path.read_text()))
    validate_config(config)
    kinds: dict[str, Any] = config["available_node_types"]
    assert list(kinds) == ["head", "tiling", "labeling"]
    assert kinds["head"]["resources"] == {"CPU": 0, "GPU": 0}
    for name in ("tiling", "labeling"):
        assert kinds[name]["min_workers"] == kinds[name]["max_workers"], (
            "a run is laid out on the cluster that it finds"
        )
    assert "spot" in str(kinds["labeling"]["node_config"]).lower()
    assert all("spot" not in str(kinds[name]["node_config"]).lower() for name in ("head", "tiling"))


def instructions() -> list[tuple[str, str]]:
    text = "\n".join(line for line in CONTAINERFILE.read_text().splitlines() if not line.lstrip().startswith("#"))
    lines = [line for line in text.replace("\\\n", " ").splitlines() if line.strip()]
    return [(line.split(maxsplit=1)[0], line.split(maxsplit=1)[1]) for line in lines]


def test_what_the_image_copies_is_in_the_repository_and_reaches_the_build():
    ignore = (REPOSITORY / ".dockerignore").read_text().splitlines()
    copied = [name for kind, rest in instructions() if kind == "COPY" for name in rest.split()[:-1]]
    assert {*copied} == {line[1:] for line in ignore if line.startswith("!")}
    assert all((REPOSITORY / name).exists() for name in copied)


def test_image_is_built_from_the_pinned_versions_runs_as_nobody_special_and_hands_on_signals():
    steps = dict(reversed(instructions()))  # of a kind, the last one counts
    assert (steps["USER"], steps["STOPSIGNAL"], steps["ENTRYPOINT"]) == ("1000", "SIGTERM", '["tini", "--"]')
    installs = [rest for kind, rest in instructions() if kind == "RUN" and "pip install" in rest]
    assert "-c constraints.txt -r requirements.txt" in installs[0]
    assert re.search(r"^torch==", (REPOSITORY / "constraints.txt").read_text(), re.MULTILINE)
    for kind, rest in instructions():
        if kind == "RUN":
            assert subprocess.run(["sh", "-n", "-c", rest], check=False).returncode == 0, rest


def test_requirements_of_the_image_are_those_of_the_package(tmp_path: Path):
    import tomllib

    (program,) = re.findall(r"python -c '([^']+)'", CONTAINERFILE.read_text())
    printed = subprocess.run(
        ["python3", "-c", program], cwd=REPOSITORY, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert printed == tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]["dependencies"]
