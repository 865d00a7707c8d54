"""The arithmetic of a forecast, on numbers that a reader can follow."""

import numpy as np
import pytest

from model.engine_stats import EngineStats
from pipeline.forecast import (
    BLOCK_IN_PROCESS_STARTS,
    STARTUP_IN_PROCESS_STARTS,
    Range,
    forecast,
    mean_range,
    num_tiles,
    seconds_by_image,
)
from schemas.errors import ErrorKind, RowError
from schemas.rows import ImageRow, Label, RowImage


def row(*, grid=(1, 1), output_tokens=0, prompt_tokens=0, attempts=1) -> ImageRow:
    label = Label(
        recipe="ocr",
        recipe_digest="",
        table="ocr",
        item=0,
        prompt="",
        num_prompt_tokens=prompt_tokens,
        num_output_tokens=output_tokens,
        finish_reason="stop",
        mean_logprob=0.0,
        attempts=attempts,
    )
    image = RowImage(uri="a.jpg", tiles_wide=grid[0], tiles_high=grid[1])
    return ImageRow(sample_id="a", images=(image,), manifest_shard="", recipes=("ocr",), labels=(label,))


STATS = EngineStats(
    num_tiles=10,
    vision_s=1.0,  # 0.1 s a tile
    prefill_only_tokens=1000,
    prefill_only_s=1.0,  # 1 ms a token
    decode_only_tokens=100,
    decode_only_s=1.0,  # 10 ms a token
)


def forecast_of(seconds, **how):
    given = {
        "num_images": 100,
        "num_replicas": 1,
        "tiling_s_per_image": 0.0,
        "num_tile_actors": 1,
        "process_start_s": 2.0,
        "num_blocks": 10,
        "on_cpus": False,
        "seed": 0,
    }
    return forecast(np.array(seconds), **(given | how))


def test_time_is_divided_by_what_each_image_had_the_engine_do():
    light = row(grid=(1, 1), prompt_tokens=100)  # 2 tiles and 100 tokens: 0.3 s
    heavy = row(grid=(3, 1), prompt_tokens=200, output_tokens=60)  # 4 tiles, 200 and 60 tokens: 1.2 s
    assert seconds_by_image([light, heavy], STATS, 3.0) == pytest.approx([0.6, 2.4])


def test_answer_that_was_decoded_three_times_counts_three_times():
    once, thrice = row(output_tokens=10), row(output_tokens=10, attempts=3)
    seconds = seconds_by_image([once, thrice], STATS, 8.0)
    assert seconds == pytest.approx([8 * 0.3 / 0.8, 8 * 0.5 / 0.8])


def test_images_that_all_failed_share_the_time_evenly():
    failed = row().failed(RowError(kind=ErrorKind.UNREADABLE, message="no image"))
    assert num_tiles(failed) == 0
    assert seconds_by_image([failed, failed], EngineStats(), 1.0) == pytest.approx([0.5, 0.5])


def test_images_that_are_all_alike_leave_no_range():
    alike = mean_range(np.full(20, 0.5), seed=0)
    assert (alike.low, alike.expected, alike.high) == pytest.approx((0.5, 0.5, 0.5))


def test_range_of_the_mean_is_that_of_the_normal_law_where_many_are_measured():
    values = np.random.default_rng(1).normal(10.0, 2.0, 400)
    found = mean_range(values, seed=0)
    half = 1.645 * values.std() / 20
    assert found.low == pytest.approx(found.expected - half, abs=0.03)
    assert found.high == pytest.approx(found.expected + half, abs=0.03)


def test_same_seed_draws_the_same_range():
    values = np.arange(30.0)
    assert mean_range(values, seed=3) == mean_range(values, seed=3)


def test_startup_is_counted_apart_and_added():
    found = forecast_of([0.5] * 8)
    assert found.images_per_s.expected == pytest.approx(2.0)
    assert found.startup_s == STARTUP_IN_PROCESS_STARTS.times(2.0)
    assert found.run_s.expected == pytest.approx(found.startup_s.expected + 50.0)


def test_replicas_share_the_images():
    assert forecast_of([0.5] * 8, num_replicas=4).images_per_s.expected == pytest.approx(8.0)


def test_cluster_labels_no_faster_than_it_tiles():
    slow_tiling = forecast_of([0.5] * 8, num_replicas=4, tiling_s_per_image=1.0, num_tile_actors=2)
    assert slow_tiling.images_per_s == Range(low=2.0, expected=2.0, high=2.0)


def test_on_cpus_what_ray_does_for_each_block_is_added():
    on_gpus, on_cpus = forecast_of([0.5] * 8), forecast_of([0.5] * 8, on_cpus=True)
    extra = on_cpus.run_s.expected - on_gpus.run_s.expected
    assert extra == pytest.approx(10 * BLOCK_IN_PROCESS_STARTS.expected * 2.0)


def test_rate_of_a_range_of_seconds_turns_its_ends_around():
    assert Range(low=0.5, expected=1.0, high=2.0).inverse() == Range(low=0.5, expected=1.0, high=2.0)
