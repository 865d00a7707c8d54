"""Fixtures of the tests of the model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from model import ranged_download
from model.nano.scenes import Scene, render_scene, scene_seed
from tests.model.drawn_scenes import NUM_SCENES
from tests.model.stored_checkpoints import RANGE_BYTES


@pytest.fixture(scope="package", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tensors here are so small that threads only wait for each other, on a busy machine for most of the time."""
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(num_threads)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where this test's downloads are kept: nothing is there yet."""
    monkeypatch.setenv("LABELMILL_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def checkpoints(cache: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The checkpoints in that cache, fetched in ranges as small as those of `stored_checkpoints`."""
    monkeypatch.setattr(ranged_download, "RANGE_BYTES", RANGE_BYTES)
    return cache / "checkpoints"


@pytest.fixture(scope="session")
def scenes() -> list[Scene]:
    """Read by many tests, changed by none."""
    return [render_scene(scene_seed(2024, index)) for index in range(NUM_SCENES)]
