"""`labelmill app` as it is started and ended, and what it says when it cannot be."""

import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from jobs.app.asked import asked
from jobs.app.guard import is_loopback
from tests.command import REPOSITORY

WITHOUT_GRADIO = "import sys; sys.modules['gradio'] = None; from jobs.cli import main; main()"
START = "from jobs.cli import main; main()"


def started(code: str, *arguments: str, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-c", code, "app", *arguments],
        cwd=REPOSITORY,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_missing_gradio_is_one_line_that_says_how_to_install_it():
    process = started(WITHOUT_GRADIO)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(stderr.splitlines()) == 1
    assert "pip install 'labelmill[app]'" in stderr


def test_port_that_is_taken_is_one_line():
    pytest.importorskip("gradio")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = started(START, "--port", str(taken.getsockname()[1]))
        _, stderr = process.communicate(timeout=60)
    assert process.returncode == 1
    assert len(stderr.splitlines()) == 1
    assert "choose another --port" in stderr


@pytest.mark.parametrize(
    ("override", "code", "fragment"),
    [
        ("engine.dtpe=float32", 2, "engine.dtpe"),
        ("limits.max_bytes=many", 2, "limits.max_bytes"),
        ("output=/tmp/labels", 1, "settings of engine. and limits. only"),
    ],
)
def test_setting_that_it_does_not_take_is_one_line(override: str, code: int, fragment: str):
    process = started(START, "--port", "0", "--set", override)
    _, stderr = process.communicate(timeout=60)
    assert process.returncode == code
    assert len(stderr.splitlines()) == 1
    assert fragment in stderr


def test_app_tells_where_it_is_warns_of_others_and_leaves_no_file(tmp_path: Path):
    pytest.importorskip("gradio")
    process = started(START, "--port", "0", "--host", "0.0.0.0", "--set", "engine.device=cpu", TMPDIR=str(tmp_path))
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith("labelmill app: http://0.0.0.0:")
        assert list(tmp_path.glob("labelmill-app-*"))
        process.send_signal(signal.SIGTERM)
        _, stderr = process.communicate(timeout=60)
    finally:
        process.kill()
        process.wait()
    assert process.returncode == 0
    (warning,) = stderr.splitlines()
    assert "no password" in warning
    assert list(tmp_path.glob("labelmill-app-*")) == []


@pytest.mark.parametrize(
    ("host", "is_own"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), ("0.0.0.0", False), ("example.com", False), ("", False)],
)
def test_loopback_is_told_from_the_rest(host: str, is_own: bool):
    assert is_loopback(host) is is_own


@pytest.mark.parametrize(
    ("recipes", "filled_in", "says"),
    [
        ([], {}, "Choose a recipe"),
        (["caption"], {"num_images": 0}, "Choose an image first"),
        (["qa"], {"questions": " \n "}, "qa needs a question"),
        (["grounding"], {}, "grounding needs to know what to find"),
        (["visual-prompt"], {}, "visual-prompt needs a mark"),
        (["visual-prompt"], {"mark_points": "1, 2, 3"}, "x and y by turns"),
        (["score"], {}, "choose one of them as well"),
        (["caption"], {"temperature": "-1"}, "temperature"),
        (["caption"], {"temperature": "warm"}, "temperature"),
        (["caption"], {"max_new_tokens": "0"}, "max_new_tokens"),
    ],
)
def test_what_is_missing_is_said_in_a_sentence(recipes: list[str], filled_in: dict, says: str):
    with pytest.raises(ValueError, match=says):
        asked(recipes, **{"num_images": 1, **filled_in})


def test_all_recipes_can_be_asked_at_once():
    from pipeline.recipes import built_in_names, check_recipes

    wanted = asked(
        built_in_names(),
        num_images=2,
        questions="What?\nWhere?",
        queries="a dog",
        mark_points="1, 1, 9, 9",
        style="short",
    )
    assert set(check_recipes(wanted.specs)) == {*built_in_names()}
    assert wanted.turns == ("What?", "Where?")
