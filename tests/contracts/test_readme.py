"""What the README shows is what there is: commands, options, the job file, files and links."""

import re
import subprocess

import pytest

from jobs.job_file import read_job
from schemas.tables import ALL_TABLES, COMMON
from tests.command import COMMAND, REPOSITORY, labelmill

README = (REPOSITORY / "README.md").read_text()
DOCUMENTS = [
    *(REPOSITORY / path for path in ("README.md", "infra/README.md")),
    *sorted((REPOSITORY / "docs").rglob("*.md")),
]


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)


def test_first_block_is_the_two_commands_and_both_are_targets():
    lines = blocks("sh")[0].splitlines()
    assert [line.split("#")[0].strip() for line in lines] == ["make demo", "make test"]
    help_text = subprocess.run(["make", "help"], cwd=REPOSITORY, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "demo", "test", "check", "bench"):
        assert re.search(rf"make {target} +\S", help_text), f"make help does not explain {target}"


def test_job_in_the_readme_is_valid():
    (job,) = blocks("yaml")
    assert [recipe.name for recipe in read_job(job).recipes] == ["ocr", "caption", "qa", "grounding"]


VERBS = (
    "demo",
    "run",
    "plan",
    "submit",
    "manifest",
    "label",
    "recipes",
    "status",
    "retry",
    "verify",
    "export",
    "report",
    "app",
    "bench",
)


@pytest.mark.parametrize("verb", VERBS)
def test_every_option_shown_for_a_verb_exists(verb: str):
    usage = labelmill(verb, "--help")
    assert usage.code == 0
    shown = re.findall(rf"labelmill {verb} ([^\n#`]*)", README)
    assert shown, f"the README shows no labelmill {verb}"
    for option in {option for line in shown for option in re.findall(r"--[a-z-]+", line)}:
        assert option in usage.stdout


def test_every_verb_of_the_command_is_in_the_readme():
    listed = re.findall(r"│ (\w+) +[A-Z]", labelmill("--help").stdout)
    assert set(listed) == set(VERBS)
    assert COMMAND.exists()


def test_every_table_and_common_column_is_named():
    dataset = (REPOSITORY / "docs" / "dataset.md").read_text()
    for name in [*ALL_TABLES, *(field.name for field in COMMON)]:
        assert re.search(rf"\b{name}\b", dataset), f"{name} is not in docs/dataset.md"


def test_python_example_runs(tmp_path, monkeypatch):
    from PIL import Image

    Image.new("RGB", (64, 48), "red").save(tmp_path / "picture.png")
    monkeypatch.chdir(tmp_path)
    (example,) = blocks("python")
    exec(compile(example, "README.md", "exec"), {})


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_that_a_document_names_exist(document):
    text = document.read_text()
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", text) if "://" not in link]
    paths = re.findall(r"`((?:pipeline|model|jobs|schemas|tests|docs)/[\w/]+\.(?:py|md))`", text)
    for link in links:
        assert (document.parent / link).exists(), link
    for path in paths:
        assert (REPOSITORY / path).exists(), path
