"""Fixtures of the tests of the pipeline; a file with a source or an output of another kind has its own."""

import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.pipeline.exported import put_pictures


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A folder with the pictures that exports are made of, read by many tests and written by none."""
    return put_pictures(tmp_path_factory.mktemp("source"))


@pytest.fixture(params=["local", "s3"])
def output(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Where nothing is yet, in both kinds of store."""
    return request.getfixturevalue("bucket") + "/out" if request.param == "s3" else str(tmp_path / "out")


@pytest.fixture
def pillow_settings_stay() -> Iterator[None]:
    before = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        yield
    assert before == Image.MAX_IMAGE_PIXELS
