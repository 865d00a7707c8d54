"""What a person does on the page of the app, and looks for there."""

import io
from typing import Any

from PIL import Image

from tests.jobs.browsers import Tab

MARKUP = '<script>document.title = "taken"</script><img src=x onerror="document.title = 1">'
BOX_TOLERANCE = 0.06
"""Of a side of the picture: what nano's boxes are off by, beside those of the page, which are not."""


def file_of(image: Image.Image, name: str = "scene.png") -> dict[str, Any]:
    encoded = io.BytesIO()
    image.save(encoded, "PNG")
    return {"name": name, "mimeType": "image/png", "buffer": encoded.getvalue()}


def upload(tab: Tab, *files: dict[str, Any]) -> None:
    tab.page.wait_for_selector("#lm-files input[type=file]", state="attached")
    tab.page.set_input_files("#lm-files input[type=file]", list(files))
    tab.page.wait_for_function(f"document.querySelectorAll('#lm-files tr.file').length == {len(files)}")


def choose(tab: Tab, *recipes: str) -> None:
    """Beside `caption`, which is chosen already."""
    for recipe in recipes:
        tab.page.click("#lm-recipes input")
        tab.page.keyboard.type(recipe)
        tab.page.locator("#lm-recipes").get_by_role("option", name=recipe, exact=True).click()
    tab.page.keyboard.press("Escape")


def run(tab: Tab) -> None:
    tab.page.click("#lm-run")


def wait_for_answers(tab: Tab) -> str:
    tab.page.wait_for_function("document.querySelector('#lm-answers').innerText.includes('log-probability')")
    return str(tab.page.inner_text("#lm-answers"))


def message(tab: Tab) -> str:
    tab.page.wait_for_selector("#lm-said .lm-error")
    return str(tab.page.inner_text("#lm-said"))


def assert_drawn_over(tab: Tab, box: tuple[int, ...], size: tuple[int, int], tolerance: float = BOX_TOLERANCE) -> None:
    """Of the screen's own pixels: where the box is drawn, and where the object is shown."""
    shown = tab.page.locator(".lm-picture:visible img").first.bounding_box()
    drawn = tab.page.locator(".lm-picture:visible rect.lm-box").first.bounding_box()
    per_x, per_y = shown["width"] / size[0], shown["height"] / size[1]
    wanted = (box[0] * per_x, box[1] * per_y, box[2] * per_x, box[3] * per_y)
    left, top = drawn["x"] - shown["x"], drawn["y"] - shown["y"]
    found = (left, top, left + drawn["width"], top + drawn["height"])
    for side, is_at, belongs_at in zip((0, 1, 0, 1), found, wanted, strict=True):
        extent = shown["height"] if side else shown["width"]
        assert abs(is_at - belongs_at) <= tolerance * extent, (found, wanted)
