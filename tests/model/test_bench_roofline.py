"""The arithmetic of the roofline, held to figures that were worked out by hand for DeepSeek-VL2-Small.

One GPU of 790 TFLOP/s in bfloat16 and 4.3 TB/s; prompts of 30 text tokens, 200 output tokens, batch 256.
"""

import dataclasses

import pytest

from model.bench import roofline
from model.bench.roofline import ImageWork, MachineRates
from model.kv_cache import kv_bytes_per_token, kv_row_width
from model.variants import VARIANTS, variant_config

SMALL = variant_config("small")
RATES = MachineRates(matmul_flops_per_s=790e12, copy_bytes_per_s=4.3e12)
BF16 = 2
ONE_TILE = ImageWork(num_tiles=2, num_shared_tokens=425, num_own_tokens=[26], num_output_tokens=200)
NINE_TILES = ImageWork(num_tiles=10, num_shared_tokens=2021, num_own_tokens=[26], num_output_tokens=200)


def images_per_s(variant: str, work: ImageWork, batch: int = 256) -> float:
    return 1 / roofline.image_s(variant_config(variant), work, batch, RATES, BF16)


def test_tower_and_projector_take_1_34_tflop_for_a_tile_and_its_global_view():
    assert 2 * roofline.vision_tile_flops(SMALL) == pytest.approx(1.34e12, abs=0.005e12)


def test_prompt_token_takes_two_operations_per_activated_parameter():
    assert roofline.decoder_flops_per_token(SMALL.language) == pytest.approx(4.483e9, abs=0.0005e9)


@pytest.mark.parametrize(("num_tokens", "tflop"), [(451, 2.02 + 0.03), (2047, 9.18 + 0.58)])
def test_prefill_is_matrix_products_and_causal_attention(num_tokens: int, tflop: float):
    assert roofline.prefill_flops(SMALL.language, num_tokens) == pytest.approx(tflop * 1e12, abs=0.01e12)


@pytest.mark.parametrize("variant", VARIANTS)
def test_prompt_computed_in_two_pieces_takes_what_it_takes_at_once(variant: str):
    language = variant_config(variant).language
    pieces = roofline.prefill_flops(language, 300) + roofline.prefill_flops(language, 151, num_cached_tokens=300)
    assert pieces == roofline.prefill_flops(language, 451)


@pytest.mark.parametrize(("num_context_tokens", "tflop"), [(551, 1.08), (2147, 1.38)])
def test_200_output_tokens_take_the_lm_head_and_absorbed_attention(num_context_tokens: int, tflop: float):
    assert 200 * roofline.decode_flops(SMALL.language, num_context_tokens) == pytest.approx(tflop * 1e12, abs=0.005e12)


def test_decode_step_of_256_reads_30_99_gb_of_weights_and_routers_twice_as_wide():
    routers = 26 * 64 * 2048 * BF16
    assert roofline.decode_weight_bytes(SMALL.language, 256, BF16) == pytest.approx(30.99e9 + routers, abs=0.005e9)


@pytest.mark.parametrize(("num_context_tokens", "context_gb", "step_ms"), [(551, 4.39, 8.23), (2147, 17.10, 11.18)])
def test_decode_step_reads_every_context_beside_the_weights(num_context_tokens, context_gb, step_ms):
    weights = roofline.decode_weight_bytes(SMALL.language, 256, BF16)
    everything = roofline.decode_step_bytes(SMALL.language, 256, num_context_tokens, BF16)
    assert everything - weights == pytest.approx(context_gb * 1e9, abs=0.01e9)
    step_s = roofline.decode_step_s(SMALL.language, 256, num_context_tokens, RATES, BF16)
    assert step_s == pytest.approx(step_ms / 1e3, abs=0.01e-3)


@pytest.mark.parametrize(("num_context_tokens", "tokens_per_s"), [(551, 31_100), (2147, 22_900)])
def test_decode_rate_is_the_batch_over_the_step(num_context_tokens: int, tokens_per_s: float):
    rate = roofline.decode_tokens_per_s(SMALL.language, 256, num_context_tokens, RATES, BF16)
    assert rate == pytest.approx(tokens_per_s, abs=50)


@pytest.mark.parametrize(
    ("variant", "one_tile", "nine_tiles", "precision"),
    [("tiny", 210, 56, 1), ("small", 93.2, 33.8, 0.05), ("27b", 60, 23, 0.5)],
)
def test_images_per_s_with_phases_in_series(variant: str, one_tile: float, nine_tiles: float, precision: float):
    assert images_per_s(variant, ONE_TILE) == pytest.approx(one_tile, abs=precision)
    assert images_per_s(variant, NINE_TILES) == pytest.approx(nine_tiles, abs=precision)


@pytest.mark.parametrize(("batch", "one_tile", "nine_tiles"), [(512, 126, 37.3), (1024, 154, 39.4)])
def test_larger_batch_shares_the_weights_among_more_images(batch: int, one_tile: float, nine_tiles: float):
    assert images_per_s("small", ONE_TILE, batch) == pytest.approx(one_tile, abs=0.5)
    assert images_per_s("small", NINE_TILES, batch) == pytest.approx(nine_tiles, abs=0.05)


def test_three_more_prompts_on_an_image_repeat_neither_its_tiles_nor_its_tokens():
    four_prompts = dataclasses.replace(NINE_TILES, num_own_tokens=[26] * 4)
    one_s = roofline.image_s(SMALL, NINE_TILES, 256, RATES, BF16)
    own_flops = roofline.prefill_flops(SMALL.language, 26, num_cached_tokens=2021)
    own_s = own_flops / 790e12 + 200 / roofline.decode_tokens_per_s(SMALL.language, 256, 2147, RATES, BF16)
    assert roofline.image_s(SMALL, four_prompts, 256, RATES, BF16) == pytest.approx(one_s + 3 * own_s)


@pytest.mark.parametrize(("num_tokens", "num_experts"), [(0, 0), (1, 6), (2, 64 * (1 - (58 / 64) ** 2))])
def test_expected_experts_of_a_few_tokens(num_tokens: int, num_experts: float):
    assert roofline.expected_experts(SMALL.language, num_tokens) == pytest.approx(num_experts)


def test_every_expert_is_expected_to_be_chosen_by_a_large_batch():
    assert roofline.expected_experts(SMALL.language, 256) == pytest.approx(64, abs=1e-3)


def test_dense_model_has_no_experts_to_choose():
    dense = dataclasses.replace(SMALL.language, n_routed_experts=None, n_shared_experts=None, num_experts_per_tok=0)
    assert roofline.expected_experts(dense, 256) == 0
    assert roofline.decode_weight_bytes(dense, 1, BF16) == roofline.decode_weight_bytes(dense, 256, BF16)


@pytest.mark.parametrize("variant", VARIANTS)
def test_cache_rows_are_as_wide_as_those_of_the_cache(variant: str):
    language = variant_config(variant).language
    assert kv_bytes_per_token(language, BF16) == language.num_hidden_layers * kv_row_width(language) * BF16


def test_small_machine_is_bound_by_its_multiplications():
    slow = MachineRates(matmul_flops_per_s=1e9, copy_bytes_per_s=4.3e12)
    step_s = roofline.decode_step_s(SMALL.language, 8, 100, slow, BF16)
    assert step_s == pytest.approx(8 * roofline.decode_flops(SMALL.language, 100) / 1e9)
