"""The app in a browser: answers stream in, boxes lie over their objects, nobody else is asked, and neither bad uploads
nor closed tabs hurt those who stay."""

import io
import json
import re
import struct
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from jobs.app.serve import build_app
from model.nano.scenes import Scene, render_scene, scene_seed
from pipeline.app.browse import OutputReader
from pipeline.app.studio import Studio
from schemas.job import EngineSpec, LimitsSpec
from schemas.rows import ImageRow, Label
from tests import golden
from tests.jobs.browsers import DESKTOP, PHONE, Tab, chromium, serving, wait_until
from tests.pipeline.exported import box_of, finished_output, label, name_of, put_pictures

pytestmark = pytest.mark.e2e

MARKUP = '<script>document.title = "taken"</script><img src=x onerror="document.title = 1">'
BOX_TOLERANCE = 0.06
"""Of a side of the picture: what nano's boxes are off by, beside those of the page, which are not."""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with chromium() as found:
        yield found


@pytest.fixture(scope="module")
def uploads(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("uploads")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(folder))
        patch.setenv("GRADIO_ANALYTICS_ENABLED", "False")
        yield folder


@pytest.fixture(scope="module")
def gradio(browser: Any, uploads: Path) -> Any:
    return pytest.importorskip("gradio", reason="gradio is not installed: pip install -e '.[app]'")


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browsed")
    return finished_output(put_pictures(folder / "in"), folder / "out", labels_of, recipes=("ocr",))


def labels_of(row: ImageRow) -> list[Label]:
    name = name_of(row)
    return [
        label("ocr", text=MARKUP if name == "wide.webp" else f"text of {name}", flags=["low_logprob"]),
        label("grounding", query="red thing", text="", boxes=[box_of(name)], image_index=0),
    ]


@pytest.fixture(scope="module")
def nano(gradio: Any, uploads: Path, output: str) -> Iterator[str]:
    studio = Studio(checkpoint="nano", engine=EngineSpec(), limits=LimitsSpec())
    reader = OutputReader(output)
    with serving(build_app(gradio, studio, reader, host="127.0.0.1", uploads=uploads)) as url:
        yield url
    reader.close()
    studio.close()


@pytest.fixture(scope="module")
def scene() -> Scene:
    return next(one for one in map(render_scene, (scene_seed(5000, i) for i in range(20))) if len(one.objects) == 2)


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


def status_of(url: str, **headers: str) -> int:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=20) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code


@pytest.mark.parametrize(
    "path",
    [
        "gradio_api/file=/etc/passwd",
        "gradio_api/file=../../../../etc/passwd",
        "gradio_api/file=%2e%2e/%2e%2e/etc/passwd",
        "gradio_api/file%3D/etc/passwd",
        "file=/etc/passwd",
        "gradio_api/file=https://example.com/",
        "gradio_api/proxy=https://example.hf.space/",
        "static/../../../../../etc/passwd",
        "static/%2e%2e/%2e%2e/%2e%2e/%2e%2e/etc/passwd",
        "assets/..%2f..%2f..%2f..%2fetc/passwd",
    ],
)
def test_no_route_reads_files_or_asks_other_hosts(nano: str, path: str):
    assert status_of(nano + path) in (403, 404)


def test_page_of_another_name_that_points_here_is_refused(nano: str):
    assert status_of(nano, Host="attacker.example") == 403
    assert status_of(nano, Host="localhost:7860") == 200


@pytest.mark.parametrize("where", ["on disk", "on disk, past the uploads", "on another host"])
def test_file_elsewhere_cannot_be_named_as_an_upload(
    browser: Any, nano: str, scene: Scene, tmp_path: Path, uploads: Path, where: str
):
    elsewhere = tmp_path / "private.png"
    scene.image.save(elsewhere)
    path = {
        "on disk": str(elsewhere),
        "on disk, past the uploads": f"{uploads}/../{elsewhere.relative_to(tmp_path.parent)}",
        "on another host": "https://example.com/private.png",
    }[where]
    tab = Tab(browser, nano)
    upload(tab, file_of(scene.image))

    def name_another_file(route: Any) -> None:
        body = json.loads(route.request.post_data)
        body["data"][0][0] |= {"path": path}
        route.continue_(post_data=json.dumps(body))

    tab.page.route("**/gradio_api/queue/join*", name_another_file)
    with tab.page.expect_response("**/gradio_api/queue/join*") as answer:
        run(tab)
    assert answer.value.status == 403
    assert tab.page.locator("#lm-pictures img").count() == 0
    tab.page.close()


@pytest.fixture(scope="module")
def endless(gradio: Any, uploads: Path) -> Iterator[tuple[Studio, str]]:
    """A checkpoint of random weights, which hardly ever ends an answer by itself."""
    checkpoint = str(golden.checkpoint_folder("base-like"))
    studio = Studio(checkpoint=checkpoint, engine=EngineSpec(max_num_sequences=4), limits=LimitsSpec())
    with serving(build_app(gradio, studio, None, host="127.0.0.1", uploads=uploads)) as url:
        yield studio, url
    studio.close()


NUM_QUESTIONS, LONGEST = 40, 1000


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
