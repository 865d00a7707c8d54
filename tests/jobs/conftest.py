"""The app with nano and an output to look through, and a browser to open it in."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from jobs.app.serve import build_app
from model.nano.scenes import Scene, render_scene, scene_seed
from pipeline.app.browse import OutputReader
from pipeline.app.studio import Studio
from schemas.job import EngineSpec, LimitsSpec
from schemas.rows import ImageRow, Label
from tests.jobs.app_page import MARKUP
from tests.jobs.browsers import chromium, serving
from tests.pipeline.exported import box_of, finished_output, label, name_of, put_pictures


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
def browsed_output(tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("browsed")
    return finished_output(put_pictures(folder / "in"), folder / "out", labels_of, recipes=("ocr",))


def labels_of(row: ImageRow) -> list[Label]:
    name = name_of(row)
    return [
        label("ocr", text=MARKUP if name == "wide.webp" else f"text of {name}", flags=["low_logprob"]),
        label("grounding", query="red thing", text="", boxes=[box_of(name)], image_index=0),
    ]


@pytest.fixture(scope="module")
def nano(gradio: Any, uploads: Path, browsed_output: str) -> Iterator[str]:
    studio = Studio(checkpoint="nano", engine=EngineSpec(), limits=LimitsSpec())
    reader = OutputReader(browsed_output)
    with serving(build_app(gradio, studio, reader, host="127.0.0.1", uploads=uploads)) as url:
        yield url
    reader.close()
    studio.close()


@pytest.fixture(scope="module")
def scene() -> Scene:
    return next(one for one in map(render_scene, (scene_seed(5000, i) for i in range(20))) if len(one.objects) == 2)
