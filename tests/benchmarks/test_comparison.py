"""A ratio compares what ran next to each other, and the workload is what its description says."""

import pytest

from model.config_files import load_processor_config
from model.tiling import select_resolution
from tests import golden
from tests.benchmarks.comparison import Rates, Ratio, take_turns
from tests.benchmarks.photographs import MEGAPIXEL_SIZES, MIXED_SIZES
from tests.benchmarks.text_requests import TextRequest, draw_requests, padding_share


def lengths(*num_output_tokens: int) -> list[TextRequest]:
    return [TextRequest(prompt_words=(0,), num_output_tokens=number) for number in num_output_tokens]


def test_ratio_is_taken_within_each_turn_so_that_a_slow_turn_of_both_sides_cancels():
    ours, theirs = Rates(values=(40, 4, 60)), Rates(values=(20, 2, 20))
    assert Ratio.of(ours, theirs) == Ratio(median=2, low=2, high=3)


def test_ratio_of_sides_with_different_numbers_of_turns_is_refused():
    with pytest.raises(ValueError):
        Ratio.of(Rates(values=(1, 2)), Rates(values=(1,)))


def test_every_side_runs_once_per_turn_and_the_order_is_reversed_in_every_other_turn():
    order: list[str] = []

    def side(name: str) -> float:
        order.append(name)
        return float(len(order))

    rates = take_turns({"a": lambda: side("a"), "b": lambda: side("b")}, 3)
    assert "".join(order) == "abbaab"
    assert rates["a"].values == (1, 4, 5)


def test_padding_share_counts_the_rows_that_wait_for_the_longest_of_their_batch():
    # batches (4, 8) and (2): 8 + 8 + 2 rows are computed, 4 + 8 + 2 were asked for
    assert padding_share(lengths(4, 8, 2), 2) == pytest.approx(1 - 14 / 18)


def test_equal_output_lengths_leave_nothing_to_pad():
    requests = draw_requests(7, seed=0, num_words=100, equal_output_tokens=64)
    assert {request.num_output_tokens for request in requests} == {64}
    assert padding_share(requests, 3) == 0


def test_output_lengths_are_skewed_most_short_and_a_few_at_the_limit():
    drawn = sorted(request.num_output_tokens for request in draw_requests(2000, seed=0, num_words=100))
    assert drawn[0] == 8
    assert drawn[-1] == 256
    assert 35 <= drawn[1000] <= 45
    assert sum(drawn) / len(drawn) > 1.2 * drawn[1000]


def test_prompts_have_64_to_128_words_of_the_vocabulary_and_follow_from_the_seed():
    requests = draw_requests(1000, seed=1, num_words=5)
    assert {len(request.prompt_words) for request in requests} == set(range(64, 129))
    assert {word for request in requests for word in request.prompt_words} == set(range(5))
    assert requests == draw_requests(1000, seed=1, num_words=5)
    assert requests != draw_requests(1000, seed=2, num_words=5)


def test_mixed_sizes_reach_grids_from_1x1_to_3x3():
    candidates = load_processor_config(golden.checkpoint_folder("small-like")).candidate_resolutions
    chosen = [select_resolution(*size, candidates) for size in MIXED_SIZES]
    grids = [(width // 384, height // 384) for width, height in chosen]
    assert grids == [(1, 1), (2, 1), (1, 2), (3, 1), (2, 2), (3, 2), (2, 3), (3, 3)]


def test_megapixel_sizes_are_one_megapixel_within_a_hundredth():
    assert all(abs(width * height / 1e6 - 1) < 0.01 for width, height in MEGAPIXEL_SIZES)
