"""What the app labels is what a job would: same stages, same answers; and what it shows is where it says."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.nano.scenes import render_scene, scene_seed
from pipeline.app.live import LiveAnswers
from pipeline.app.studio import Studio
from pipeline.label_here import label_here
from schemas.errors import ErrorKind
from schemas.job import EngineSpec, LimitsSpec, RecipeSpec

LIMITS = LimitsSpec(max_pixels=400_000, max_bytes=1_000_000, max_images=3)
SPECS = (RecipeSpec(name="caption"), RecipeSpec(name="grounding", queries=("the star",)))


@pytest.fixture(scope="module")
def studio() -> Iterator[Studio]:
    with Studio(checkpoint="nano", engine=EngineSpec(), limits=LIMITS) as opened:
        yield opened


def test_labels_are_those_of_a_job_and_were_all_watched(studio: Studio, tmp_path: Path):
    path = tmp_path / "scene.png"
    render_scene(scene_seed(5000, 1)).image.save(path)
    live = LiveAnswers()
    row = asyncio.run(studio.label(studio.prepare([("scene.png", path)]), SPECS, watch=live))
    (alone,) = label_here([str(path)], recipes=SPECS, checkpoint="nano", engine=EngineSpec(), limits=LIMITS)
    assert row.labels == alone.row.labels != ()
    assert next(one.text for one in live.answers()) == row.labels[0].values["caption"]
    assert all(one.is_done for one in live.answers())


def test_crops_are_the_parts_of_the_image_that_the_tiles_show(studio: Studio, tmp_path: Path):
    """A gradient tells by its grey where a pixel comes from."""
    width, height = 448, 224
    ramp = np.broadcast_to(np.linspace(0, 255, width)[None, :, None], (height, width, 3)).astype(np.uint8)
    Image.fromarray(ramp).save(tmp_path / "ramp.png")
    (picture,) = studio.prepare([("ramp.png", tmp_path / "ramp.png")]).pictures
    tiles_wide, tiles_high = picture.grid
    assert len(picture.crops) == tiles_wide * tiles_high == len(picture.tiles) - 1
    for tile, (left, _, right, _) in zip(picture.tiles[1:], picture.crops, strict=True):
        inside = tile[tile.shape[0] // 2]
        assert abs(int(inside[2, 0]) - left / width * 255) < 6
        assert abs(int(inside[-3, 0]) - right / width * 255) < 6


@pytest.mark.parametrize(
    ("size", "count", "kind"),
    [((700, 700), 1, ErrorKind.TOO_MANY_PIXELS), ((4, 4), 4, ErrorKind.TOO_MANY_IMAGES)],
)
def test_limits_of_a_job_hold(studio: Studio, tmp_path: Path, size: tuple[int, int], count: int, kind: ErrorKind):
    Image.new("RGB", size).save(tmp_path / "a.png")
    prepared = studio.prepare([("a.png", tmp_path / "a.png")] * count)
    assert prepared.row.error is not None
    assert prepared.row.error.kind is kind
    assert prepared.pictures == ()


def test_file_with_too_many_bytes_is_not_decoded(studio: Studio, tmp_path: Path):
    (tmp_path / "large.png").write_bytes(bytes(LIMITS.max_bytes + 1))
    error = studio.prepare([("large.png", tmp_path / "large.png")]).row.error
    assert error is not None
    assert error.kind is ErrorKind.TOO_MANY_BYTES
