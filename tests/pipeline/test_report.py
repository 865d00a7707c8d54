"""The report, opened in the system's Chromium. Screenshots are kept in build/screenshots."""

import io
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pipeline.report.page import write_report
from pipeline.storage import canonical_uri
from tests.command import REPOSITORY
from tests.pipeline.exported import PICTURES, ask, box_of, ended, finished_output, label, name_of, put_pictures

SCREENSHOTS = REPOSITORY / "build" / "screenshots"
SIZES = {"phone": (390, 844), "desktop": (1440, 900)}
MARKUP = "<script>document.title = 'hurt'</script><img src=x onerror=\"document.title='hurt'\">"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

CORNERS_ON_SCREEN = """rect => {
  const box = rect.getBBox(), to = rect.getScreenCTM();
  const x = (at) => at * to.a + to.e, y = (at) => at * to.d + to.f;
  return [x(box.x), y(box.y), x(box.x + box.width), y(box.y + box.height)];
}"""
"""Of a shape without its stroke."""

needs_chromium = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")


@dataclass(kw_only=True)
class Opened:
    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> Iterator[object]:
    sync_playwright = pytest.importorskip("playwright.sync_api").sync_playwright
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser):
    contexts = []

    def open_(path: Path, *, size: str = "desktop", scheme: str = "light") -> Opened:
        width, height = SIZES[size]
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        opened = Opened(page=context.new_page())
        opened.page.on("console", lambda message: opened.complaints.append(message.text))
        opened.page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        opened.page.on("request", lambda request: opened.requests.append(request.url))
        opened.page.goto(path.as_uri())
        return opened

    yield open_
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory) -> Path:
    """Of pictures with one red rectangle each, whose box is labelled; one caption is markup, one is flagged."""
    folder = tmp_path_factory.mktemp("report")

    def labels(row):
        name = name_of(row)
        flags = ["loop"] if "tall" in name else []
        caption = MARKUP if "mirrored" in name else "A red thing."
        return [
            label("captions", caption=caption, style="plain", flags=flags),
            label("grounding", query="the red thing", text="", boxes=[box_of(name)], image_index=0),
            ask("What colour is it?", "Red."),
        ]

    source = put_pictures(folder / "in")
    output = finished_output(source, folder / "out", labels)
    ended(output, "captions", "grounding", "qa")
    write_report(output, out=canonical_uri(str(folder / "report.html")))
    return folder / "report.html"


def visible(page) -> int:
    return page.locator("#gallery article:visible").count()


@needs_chromium
def test_filters_of_the_gallery_leave_what_fits(report, open_page):
    page = open_page(report).page
    assert visible(page) == len(PICTURES)
    page.select_option("#f-flag", "loop")
    assert visible(page) == 1
    page.select_option("#f-flag", "")
    page.fill("#f-text", "hurt")
    assert visible(page) == 1
    page.fill("#f-text", "nothing has this")
    assert visible(page) == 0
    assert page.locator("#none").is_visible()


@needs_chromium
@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("name", ["plain.png", "Photo One.JPG", "mirrored.jpg", "turned.tiff"])
def test_box_lies_over_its_object_within_a_hundredth(report, open_page, name, size):
    page = open_page(report, size=size).page
    card = card_of(page, next(path for path in PICTURES if path.endswith(name)))
    assert_box_lies_over_the_red_thing(page, card.locator(".frame"))
    card.locator(".frame").click()
    assert_box_lies_over_the_red_thing(page, page.locator("#viewed .frame"))


def card_of(page, path: str):
    return page.locator(f'article[aria-label$="{path.replace(" ", "%20")}"], article[aria-label$="{path}"]').first


def assert_box_lies_over_the_red_thing(page, frame) -> None:
    """On the screen: each edge of the box against that of the red pixels, within 1% of the image's width or height."""
    frame.scroll_into_view_if_needed()
    image = frame.locator("img").bounding_box()
    sides_px = np.array([image["width"], image["height"]])
    assert sides_px.min() > 150, "else a hundredth is not much more than the pixel that the screenshot is rounded to"
    drawn = frame.locator("rect").evaluate(CORNERS_ON_SCREEN)
    page.evaluate("for (const one of document.querySelectorAll('.frame svg')) one.style.visibility = 'hidden'")
    pixels_HWC = np.asarray(Image.open(io.BytesIO(page.screenshot())).convert("RGB")).astype(int)
    page.evaluate("for (const one of document.querySelectorAll('.frame svg')) one.style.visibility = ''")
    left, top = (int(np.ceil(image[of])) for of in ("x", "y"))
    right, bottom = int(image["x"] + image["width"]), int(image["y"] + image["height"])
    inside_HWC = pixels_HWC[top:bottom, left:right]
    assert inside_HWC.shape[:2] == (bottom - top, right - left), "the whole image is on the screen"
    rows, columns = np.nonzero((inside_HWC[:, :, 0] > 128) & (inside_HWC[:, :, 1] < 128))
    found = [left + columns.min(), top + rows.min(), left + columns.max() + 1, top + rows.max() + 1]
    off = np.abs(np.subtract(drawn, found)) / np.tile(sides_px, 2)
    assert off.max() <= 0.01, f"the box's edges are off by {off} of the image's sides: at {drawn}, the thing at {found}"


@needs_chromium
def test_markup_in_a_caption_stays_text(report, open_page):
    opened = open_page(report)
    assert opened.page.title() == "test: report"
    assert opened.page.get_by_text(MARKUP, exact=True).count() == 1
    assert opened.complaints == []


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", SIZES)
def test_page_fits_its_window_and_asks_for_nothing(report, open_page, size, scheme):
    opened = open_page(report, size=size, scheme=scheme)
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    opened.page.screenshot(path=SCREENSHOTS / f"report-{size}-{scheme}.png", full_page=True)
    assert opened.page.evaluate("document.documentElement.scrollWidth") <= SIZES[size][0]
    assert [url for url in opened.requests if not url.startswith(("data:", "file:"))] == []
    assert sum(url.startswith("file:") for url in opened.requests) == 1
    assert opened.complaints == []


@needs_chromium
def test_theme_is_the_readers_to_choose(report, open_page):
    page = open_page(report, scheme="dark").page
    dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
    page.click("#theme")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark


@needs_chromium
def test_gallery_is_walked_with_the_keyboard_alone(report, open_page):
    page = open_page(report).page
    first, second = (page.locator("#gallery article").nth(place) for place in (0, 1))
    first.focus()
    page.keyboard.press("ArrowRight")
    assert second.evaluate("one => one === document.activeElement")
    page.keyboard.press("Enter")
    assert page.locator("#viewer").is_visible()
    page.keyboard.press("ArrowLeft")
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()
    # A closed dialog says so in a task of its own, and the picture is focused then.
    page.wait_for_function("one => one === document.activeElement", arg=first.element_handle())
