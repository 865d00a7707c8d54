"""docs/job-file.md is what the schema says, and what it says is enough to write a job file."""

import re

import pytest

from jobs.job_reference import reference
from schemas.job import JobSpec
from tests.command import REPOSITORY

DOCUMENT = (REPOSITORY / "docs" / "job-file.md").read_text()


def test_document_is_generated_from_the_schema():
    assert reference() == DOCUMENT, "run: python -m jobs.job_reference > docs/job-file.md"


@pytest.mark.parametrize("line", [line for line in DOCUMENT.splitlines() if line.startswith("| `")])
def test_every_key_has_a_meaning(line: str):
    cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]
    assert len(cells) == 4
    assert all(cells), line


def test_every_part_of_a_job_has_its_keys_listed():
    dumped = JobSpec(name="x", source={"uri": "in"}, recipes=["ocr"], output="out").model_dump()
    of_parts = {key for part in dumped.values() if isinstance(part, dict) for key in part}
    assert {key for key in of_parts | set(dumped) if f"| `{key}` |" not in DOCUMENT} == set()
