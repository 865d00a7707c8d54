"""Whoever does what a tutorial says, line by line, gets where it leads: its files are written, its commands run."""

import os
import re
import subprocess
from pathlib import Path

import pytest

from model.nano.scenes import render_scene, scene_seed
from tests.command import COMMAND, REPOSITORY
from tests.pipeline.pdfs import grey_pages

pytestmark = pytest.mark.e2e

TUTORIALS = sorted((REPOSITORY / "docs" / "tutorials").glob("*.md"))
NUM_IMAGES = 5
LEAVES = {
    "captions": ["captioned/captions", "captioned/exports/webdataset/shard-000000.tar"],
    "documents": ["read/ocr", "pages/ocr"],
    "grounding": ["boxes/grounding", "coco/instances.json"],
    "sft": ["regenerated/qa", "llava/llava.json", "messages/messages.jsonl"],
}
"""What must be there at the end."""


def blocks(text: str) -> list[tuple[str, str]]:
    """(language, content) of what is fenced, in order."""
    return re.findall(r"^```(\w+)\n(.*?)^```", text, re.DOTALL | re.MULTILINE)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """As the reader has it: pictures in photos/, documents in papers/."""
    (tmp_path / "photos").mkdir()
    for index in range(NUM_IMAGES):
        render_scene(scene_seed(5000, index)).image.save(tmp_path / "photos" / f"scene-{index}.png")
    (tmp_path / "papers").mkdir()
    (tmp_path / "papers" / "grey.pdf").write_bytes(grey_pages(2))
    return tmp_path


def run(folder: Path, *command: str) -> None:
    environment = {**os.environ, "PATH": f"{COMMAND.parent}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{command[-1]}\n{done.stdout}\n{done.stderr}"


@pytest.mark.parametrize("tutorial", TUTORIALS, ids=lambda path: path.stem)
def test_what_a_tutorial_says_can_be_done(tutorial: Path, folder: Path):
    for language, content in blocks(tutorial.read_text()):
        if language in ("yaml", "json"):
            first, rest = content.split("\n", 1)
            name = re.fullmatch(r"# (\S+)", first)
            assert name, f"{tutorial.name}: the first line of this block names no file:\n{content}"
            (folder / name[1]).write_text(rest)
        elif language == "python":
            run(folder, "python", "-c", content)
        else:
            assert language == "sh"
            for line in content.splitlines():
                run(folder, "sh", "-c", line)
    for path in LEAVES[tutorial.stem]:
        assert (folder / path).exists(), path
