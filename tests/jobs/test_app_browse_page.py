"""An output in a browser: paged, filtered, with boxes that lie over their objects, and text that stays text."""

import re
from typing import Any

import pytest

from tests.jobs.app_page import MARKUP, assert_drawn_over
from tests.jobs.browsers import DESKTOP, PHONE, Tab
from tests.pipeline.exported import box_of

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(("size", "name"), [(DESKTOP, "desktop"), (PHONE, "phone")], ids=["desktop", "phone"])
def test_output_is_paged_filtered_and_shown_with_its_boxes(browser: Any, nano: str, size: tuple[int, int], name: str):
    tab = Tab(browser, nano, size)
    tab.page.get_by_role("tab", name="Browse").click()
    tab.page.click("#lm-table input")
    tab.page.get_by_role("option", name="grounding").click()
    tab.page.wait_for_function("document.querySelectorAll('#lm-rows .lm-row').length == 8")
    assert_first_box_is_exact(tab)
    tab.keep(f"app-browse-{name}")
    tab.page.click("#lm-next")
    tab.page.wait_for_function("document.querySelectorAll('#lm-rows .lm-row').length == 1")
    tab.page.click("#lm-previous")
    tab.page.wait_for_function("document.querySelectorAll('#lm-rows .lm-row').length == 8")
    tab.page.fill("#lm-text textarea, #lm-text input", "TALL.png")
    tab.page.click("#lm-show")
    tab.page.wait_for_function("document.querySelectorAll('#lm-rows .lm-row').length == 1")
    assert "tall.png" in tab.page.inner_text("#lm-rows")
    assert tab.overhang_px <= 0
    assert tab.complaints == []
    assert tab.foreign == []
    tab.page.close()


def assert_first_box_is_exact(tab: Tab) -> None:
    tab.page.wait_for_selector("#lm-rows rect.lm-box")
    uri = re.search(r"in/(\S+\S)", tab.page.inner_text("#lm-rows .lm-row"))
    assert uri is not None
    box = box_of("a/Photo One.JPG" if "Photo" in uri[1] else uri[1])
    size = tab.page.locator("#lm-rows .lm-picture svg").first.get_attribute("viewBox").split()[2:]
    assert_drawn_over(tab, (box["x1"], box["y1"], box["x2"], box["y2"]), (int(size[0]), int(size[1])), tolerance=0.01)


def test_markup_in_an_output_stays_text(browser: Any, nano: str):
    tab = Tab(browser, nano)
    tab.page.get_by_role("tab", name="Browse").click()
    tab.page.click("#lm-table input")
    tab.page.get_by_role("option", name="ocr").click()
    tab.page.fill("#lm-text textarea, #lm-text input", "<script>")
    tab.page.click("#lm-show")
    tab.page.wait_for_function("document.querySelectorAll('#lm-rows .lm-row').length == 1")
    assert MARKUP in tab.page.inner_text("#lm-rows")
    assert tab.page.title() == "labelmill"
    tab.page.close()
