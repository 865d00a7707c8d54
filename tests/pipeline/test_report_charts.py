"""What the report's charts are drawn from, and what they say."""

import re

from pipeline.report.charts import bars, by_layer, charts, rates, speed
from pipeline.report.facts import Facts


def test_blocks_that_end_together_do_not_look_like_speed():
    """Of a run that was quiet for 20 s and then committed all within half a second."""
    assert rates([0.0, 20.0, 20.2, 20.5], [0, 10, 30, 41]) == [(0.0, 20.5, 2.0)]


def test_speeds_that_differ_for_long_are_told_apart():
    assert rates([0.0, 100.0, 200.0], [0, 100, 400]) == [(0.0, 100.0, 1.0), (100.0, 200.0, 3.0)]


def test_run_that_was_over_within_a_second_has_no_speed_to_draw():
    assert rates([0.0, 0.4], [0, 9]) == []
    assert charts(Facts(num_samples=1), {"elapsed_s": [0.0, 0.4], "num_images": [0, 9]}, ()) == []


def test_time_is_in_the_unit_that_fits_the_run():
    units = {
        duration_s: [unit for unit in ("seconds", "minutes", "hours") if unit in speed([0.0, duration_s], [0, 9])]
        for duration_s in (2.0, 179.0, 180.0, 10_799.0, 10_800.0)
    }
    assert units == {
        2.0: ["seconds"],
        179.0: ["seconds"],
        180.0: ["minutes"],
        10_799.0: ["minutes"],
        10_800.0: ["hours"],
    }


def test_every_layer_has_a_bar_and_only_as_many_names_as_fit():
    imbalance = [1 + layer / 10 for layer in range(30)]
    svg = by_layer(imbalance)
    assert re.findall(r'class="value">([^<]*)<', svg) == [f"{one:.6g}" for one in imbalance]
    assert len(re.findall(r'<text [^>]*class="major"[^>]*>\d+<', svg)) <= 12


def test_names_that_are_too_long_to_stand_beside_each_other_are_slanted():
    assert "rotate(35" not in bars({"stop": 3, "length": 1})
    assert "rotate(35" in bars({"empty": 1, "too_many_pixels": 1, "truncated": 1, "unreadable": 1})


def test_output_without_rows_or_a_record_of_its_run_has_no_charts():
    assert charts(Facts(num_samples=1), {}, ()) == []
