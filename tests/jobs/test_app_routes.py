"""The app reads no files for others, asks no other hosts, and answers to its own name only."""

import json
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from model.nano.scenes import Scene
from tests.jobs.app_page import file_of, run, upload
from tests.jobs.browsers import Tab

pytestmark = pytest.mark.e2e


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
