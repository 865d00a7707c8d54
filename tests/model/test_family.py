"""The three released variants: their configurations, as published, describe models of the published sizes.

No weights are needed: models are built on the meta device. Sizes are those of the checkpoints' files (bfloat16); they
include the pooling head of the vision tower, which the reference never reads.
"""

import json

import pytest
import torch

from model.deepseek_vl2 import DeepseekVL2
from model.kv_cache import PAGE_TOKENS, PagedKVCache
from model.variants import RELEASED_VARIANTS, variant_config
from tests import golden

NUM_POOL_PARAMETERS = 15.2e6


def num_parameters(variant: str) -> int:
    with torch.device("meta"):
        model = DeepseekVL2(variant_config(variant))
    return sum(parameter.numel() for parameter in model.parameters())


@pytest.mark.parametrize(
    ("variant", "file_parameters"), [("tiny", 3.37e9), ("small", 16.145e9), ("27b", 27.475e9)], ids=str
)
def test_released_variant_has_as_many_parameters_as_its_files(variant: str, file_parameters: float):
    assert num_parameters(variant) + NUM_POOL_PARAMETERS == pytest.approx(file_parameters, rel=1e-3)


@pytest.mark.parametrize(
    ("variant", "values_per_layer", "bytes_per_token"),
    [("small", 512 + 64, 31_104), ("27b", 512 + 64, 34_560), ("tiny", 2 * 10 * 128, 61_440)],
    ids=["small", "27b", "tiny"],
)
def test_cache_holds_the_latent_of_a_token_and_no_more(variant: str, values_per_layer: int, bytes_per_token: int):
    """Tiny has no latents: keys and values of all heads. Bytes are of bfloat16, over all layers."""
    config = variant_config(variant).language
    cache = PagedKVCache(config, num_pages=3, dtype=torch.bfloat16, device=torch.device("meta"))
    for index in range(config.num_hidden_layers):
        assert cache.layer(index).rows.shape[1] == values_per_layer
    assert cache.num_bytes / (3 * PAGE_TOKENS) == bytes_per_token


@pytest.mark.parametrize("variant", RELEASED_VARIANTS)
def test_released_variant_has_the_grids_of_a_published_checkpoint(variant: str):
    published = json.loads((golden.checkpoint_folder("base-like") / "config.json").read_text())
    grids = tuple(tuple(pair) for pair in published["candidate_resolutions"])
    assert variant_config(variant).candidate_resolutions == grids


def test_relative_for_cpus_has_the_familys_latents_in_150_million_parameters():
    language = variant_config("bench-150m").language
    assert (language.use_mla, language.kv_lora_rank, language.qk_rope_head_dim) == (True, 512, 64)
    assert num_parameters("bench-150m") == pytest.approx(150e6, rel=0.05)
