"""Answers are seen while they are written, and closed tabs do not hurt those who stay."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.app.serve import build_app
from model.nano.scenes import Scene
from pipeline.app.studio import Studio
from schemas.job import EngineSpec, LimitsSpec
from tests import golden
from tests.jobs.app_page import choose, file_of, run, upload, wait_for_answers
from tests.jobs.browsers import Tab, serving, wait_until

pytestmark = pytest.mark.e2e

NUM_QUESTIONS, LONGEST = 40, 1000


@pytest.fixture(scope="module")
def endless(gradio: Any, uploads: Path) -> Iterator[tuple[Studio, str]]:
    """A checkpoint of random weights, which hardly ever ends an answer by itself."""
    checkpoint = str(golden.checkpoint_folder("base-like"))
    studio = Studio(checkpoint=checkpoint, engine=EngineSpec(max_num_sequences=4), limits=LimitsSpec())
    with serving(build_app(gradio, studio, None, host="127.0.0.1", uploads=uploads)) as url:
        yield studio, url
    studio.close()


def ask_for_long(tab: Tab, scene: Scene) -> None:
    upload(tab, file_of(scene.image))
    choose(tab, "qa")
    tab.page.fill("#lm-questions textarea", "\n".join(f"What is it, asked {n}?" for n in range(NUM_QUESTIONS)))
    tab.page.click("#lm-settings button")
    tab.page.fill("#lm-longest textarea, #lm-longest input", str(LONGEST))
    tab.page.locator("#lm-longest textarea, #lm-longest input").blur()
    run(tab)
    tab.page.wait_for_selector("#lm-answers .lm-card .lm-caret")


def is_idle(studio: Studio) -> bool:
    before = studio.num_decode_tokens()
    time.sleep(0.5)
    return studio.num_decode_tokens() == before


def test_answers_are_seen_while_they_are_written(browser: Any, endless: tuple[Studio, str], scene: Scene):
    studio, url = endless
    tab = Tab(browser, url)
    ask_for_long(tab, scene)
    shown = "[...document.querySelectorAll('#lm-answers .lm-text')].map(one => one.innerText)"
    before: list[str] = []

    def one_has_grown() -> bool:
        now = tab.page.evaluate(shown)
        grown = any(0 < len(old) < len(new) and new.startswith(old) for old, new in zip(before, now, strict=False))
        before[:] = now
        return grown

    wait_until(one_has_grown)
    tab.page.close()
    wait_until(lambda: is_idle(studio))


@pytest.mark.parametrize("how", ["closed", "stopped"])
def test_tab_that_leaves_takes_its_answers_out_of_the_engine_and_others_go_on(
    browser: Any, endless: tuple[Studio, str], scene: Scene, how: str
):
    studio, url = endless
    before = studio.num_decode_tokens()
    leaving, staying = Tab(browser, url), Tab(browser, url)
    ask_for_long(leaving, scene)
    upload(staying, file_of(scene.image))
    staying.page.click("#lm-settings button")
    staying.page.fill("#lm-longest textarea, #lm-longest input", "12")
    staying.page.locator("#lm-longest textarea, #lm-longest input").blur()
    run(staying)
    if how == "closed":
        leaving.page.close()
    else:
        leaving.page.click("#lm-stop")
    assert "12 tokens" in wait_for_answers(staying)
    wait_until(lambda: is_idle(studio))
    assert studio.num_decode_tokens() - before < NUM_QUESTIONS * LONGEST / 2
    staying.page.close()
    leaving.page.close()
