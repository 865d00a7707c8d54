"""Images in the app, in a browser: boxes lie over their objects, and bad uploads hurt nobody."""

import struct
import zlib
from typing import Any

import pytest
from PIL import Image

from model.nano.scenes import Scene
from tests.jobs.app_page import MARKUP, assert_drawn_over, choose, file_of, message, run, upload, wait_for_answers
from tests.jobs.browsers import DESKTOP, PHONE, Tab

pytestmark = pytest.mark.e2e


@pytest.mark.parametrize(("size", "name"), [(DESKTOP, "desktop"), (PHONE, "phone")], ids=["desktop", "phone"])
def test_scene_gets_its_caption_and_boxes_over_its_objects(
    browser: Any, nano: str, scene: Scene, size: tuple[int, int], name: str
):
    tab = Tab(browser, nano, size)
    upload(tab, file_of(scene.image))
    choose(tab, "grounding")
    one = scene.objects[0]
    tab.page.fill("#lm-queries textarea", f"the {one.color} {one.shape}")
    run(tab)
    assert scene.caption in wait_for_answers(tab)
    assert_drawn_over(tab, one.box, scene.image.size)
    tab.page.click("#lm-sees button")
    tab.page.wait_for_selector("#lm-tiles .lm-grid img")
    assert "grid" in tab.page.inner_text("#lm-tiles")
    tab.keep(f"app-try-{name}")
    assert tab.overhang_px <= 0
    assert tab.complaints == []
    assert tab.foreign == []
    tab.page.close()


def test_several_images_are_one_sample_without_tiles(browser: Any, nano: str, scene: Scene):
    tab = Tab(browser, nano)
    upload(tab, *(file_of(scene.image, f"scene{n}.png") for n in range(3)))
    run(tab)
    wait_for_answers(tab)
    assert tab.page.locator("#lm-pictures figure").count() == 3
    tab.page.click("#lm-sees button")
    tab.page.wait_for_selector("#lm-tiles .lm-grid img")
    assert tab.page.inner_text("#lm-tiles").count("grid 1 × 1") == 3
    tab.page.close()


def png_header(width: int, height: int) -> bytes:
    """A file that says it has so many pixels, and holds none."""
    chunk = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"\0" * 64)
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(one) - 4) + one + struct.pack(">I", zlib.crc32(one)) for one in (chunk, data, b"IEND")
    )


BAD_UPLOADS = {
    "no image": ({"name": "notes.png", "mimeType": "image/png", "buffer": b"not an image at all"}, "image"),
    "60,000 pixels wide and high": (
        {"name": "vast.png", "mimeType": "image/png", "buffer": png_header(60_000, 60_000)},
        "60000x60000",
    ),
    "empty": ({"name": "empty.png", "mimeType": "image/png", "buffer": b""}, "empty"),
}


@pytest.mark.parametrize("bad", BAD_UPLOADS)
def test_bad_upload_is_one_message_and_the_next_one_is_labelled(browser: Any, nano: str, scene: Scene, bad: str):
    file, says = BAD_UPLOADS[bad]
    tab = Tab(browser, nano)
    upload(tab, file)
    run(tab)
    said = message(tab)
    assert says in said
    assert "Traceback" not in said
    tab.keep(f"app-{bad.replace(' ', '-').replace(',', '')}")
    tab.page.click("#lm-files button[aria-label='Clear']")
    upload(tab, file_of(scene.image))
    run(tab)
    assert scene.caption in wait_for_answers(tab)
    assert tab.page.inner_text("#lm-said").strip() == ""
    assert tab.complaints == []
    tab.page.close()


def test_image_60000_pixels_wide_is_labelled_and_shown_within_the_page(browser: Any, nano: str):
    tab = Tab(browser, nano)
    upload(tab, file_of(Image.new("RGB", (60_000, 20), (200, 30, 30)), "long.png"))
    run(tab)
    wait_for_answers(tab)
    assert tab.overhang_px <= 0
    assert "60000 × 20 px" in tab.page.inner_text("#lm-pictures")
    tab.page.close()


def test_what_is_missing_is_asked_for_in_one_message(browser: Any, nano: str, scene: Scene):
    tab = Tab(browser, nano)
    tab.page.wait_for_selector("#lm-run")
    run(tab)
    assert message(tab) == "Choose an image first."
    upload(tab, file_of(scene.image))
    choose(tab, "qa")
    tab.page.fill("#lm-questions textarea", "   ")
    run(tab)
    tab.page.wait_for_function("document.querySelector('#lm-said').innerText.includes('question')")
    assert message(tab) == "qa needs a question: write one into Questions."
    tab.page.close()


def test_what_is_read_in_an_image_or_asked_stays_text(browser: Any, nano: str, scene: Scene):
    tab = Tab(browser, nano)
    upload(tab, file_of(scene.image))
    choose(tab, "qa")
    tab.page.fill("#lm-questions textarea", MARKUP)
    run(tab)
    assert MARKUP in wait_for_answers(tab)
    assert tab.page.title() == "labelmill"
    tab.page.close()
