"""The installed `labelmill` command, run as a user runs it."""

import contextlib
import io
import json
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jobs.cli import main

COMMAND = Path(sys.executable).with_name("labelmill")
REPOSITORY = Path(__file__).parents[1]
SHARED = REPOSITORY.parent / "shared"
"""Photographs and a real object store that some machines have beside the repository."""


@dataclass(frozen=True)
class Finished:
    code: int
    stdout: str
    stderr: str

    @property
    def summary(self) -> dict[str, Any]:
        """What --json prints: the last line."""
        return json.loads(self.stdout.splitlines()[-1])

    @property
    def complaints(self) -> list[str]:
        return [line for line in self.stderr.splitlines() if line.startswith("labelmill: ")]


def labelmill(*arguments: object, cwd: Path | None = None, timeout_s: float = 240) -> Finished:
    command = [str(COMMAND), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout_s, cwd=cwd, check=False)
    return Finished(done.returncode, done.stdout, done.stderr)


def labelmill_here(*arguments: object) -> Finished:
    """The same entry point in this process: what an error says does not depend on the process, and torch is there."""
    stdout, stderr = io.StringIO(), io.StringIO()
    arguments_before, on_sigterm = sys.argv, signal.getsignal(signal.SIGTERM)
    sys.argv = ["labelmill", *map(str, arguments)]
    try:
        with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
            main()
    except SystemExit as done:
        return Finished(int(done.code or 0), stdout.getvalue(), stderr.getvalue())
    finally:
        sys.argv = arguments_before
        signal.signal(signal.SIGTERM, on_sigterm)
    raise AssertionError("the command did not end with an exit code")


def assert_one_clear_line(finished: Finished, *fragments: str, code: int = 1) -> None:
    """Bad input ends with one line that says what and where, never with a traceback."""
    assert finished.code == code, finished
    assert "Traceback" not in finished.stderr + finished.stdout
    assert len(finished.complaints) == 1, finished.stderr
    for fragment in fragments:
        assert fragment in finished.complaints[0]


def write_job(folder: Path, **values: Any) -> Path:
    """A job file with small answers; JSON is YAML."""
    job = {
        "name": "test",
        "recipes": [
            {"name": "ocr", "max_new_tokens": 6},
            {"name": "caption", "hints": ["ocr"], "max_new_tokens": 6},
            {"name": "qa", "questions": ["How many?", "Which colour?"], "max_new_tokens": 4},
            {"name": "grounding", "queries": ["the sign"], "max_new_tokens": 32},
        ],
        **values,
    }
    path = folder / "job.yaml"
    path.write_text(json.dumps(job))
    return path
