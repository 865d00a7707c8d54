"""The three released variants: their configurations, as published, describe models of the published sizes.

No weights are needed: models are built on the meta device. Sizes are those of the checkpoints' files (bfloat16); they
include the pooling head of the vision tower, which the reference never reads.
"""

import json
from pathlib import Path

import pytest
import torch

from model.config import load_model_config
from model.deepseek_vl2 import DeepseekVL2
from model.kv_cache import PAGE_TOKENS, PagedKVCache
from tests import golden

VISION = {"layers": 27, "mlp_ratio": 3.7362, "patch_size": 14, "width": 1152, "model_name": "siglip_so400m_patch14_384"}
COMMON = {
    "first_k_dense_replace": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "q_lora_rank": None,
    "n_group": 1,
    "topk_group": 1,
}
LANGUAGE = {
    "tiny": {
        **COMMON, "hidden_size": 1280, "num_hidden_layers": 12, "num_attention_heads": 10, "num_key_value_heads": 10,
        "intermediate_size": 6848, "moe_intermediate_size": 896, "topk_method": "greedy",
        "use_mla": False, "kv_lora_rank": None, "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "v_head_dim": 0,
        "vocab_size": 129280,
    },
    "small": {
        **COMMON, "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16,
        "intermediate_size": 10944, "moe_intermediate_size": 1408, "topk_method": "greedy",
        "vocab_size": 102400,
    },
    "full": {
        **COMMON, "hidden_size": 2560, "n_routed_experts": 72, "intermediate_size": 12288,
        "moe_intermediate_size": 1536,
        "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True, "routed_scaling_factor": 2.0,
        "vocab_size": 129280,
    },
}  # fmt: skip
NUM_POOL_PARAMETERS = 15.2e6


def build(variant: str, folder: Path) -> DeepseekVL2:
    language = LANGUAGE[variant]
    golden_config = json.loads((golden.checkpoint_folder("base-like") / "config.json").read_text())
    config = {
        "tile_tag": "2D",
        "global_view_pos": "head",
        "candidate_resolutions": golden_config["candidate_resolutions"],
        "vision_config": VISION,
        "projector_config": {"n_embed": language["hidden_size"]},
        "language_config": language,
    }
    (folder / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        return DeepseekVL2(load_model_config(folder))


@pytest.mark.parametrize(
    ("variant", "file_parameters"), [("tiny", 3.37e9), ("small", 16.145e9), ("full", 27.475e9)], ids=str
)
def test_released_variant_has_as_many_parameters_as_its_files(variant: str, file_parameters: float, tmp_path: Path):
    model = build(variant, tmp_path)
    num_parameters = sum(parameter.numel() for parameter in model.parameters()) + NUM_POOL_PARAMETERS
    assert num_parameters == pytest.approx(file_parameters, rel=1e-3)


@pytest.mark.parametrize(
    ("variant", "values_per_layer", "bytes_per_token"),
    [("small", 512 + 64, 31_104), ("full", 512 + 64, 34_560), ("tiny", 2 * 10 * 128, 61_440)],
    ids=["small", "full", "tiny"],
)
def test_cache_holds_the_latent_of_a_token_and_no_more(
    variant: str, values_per_layer: int, bytes_per_token: int, tmp_path: Path
):
    """Tiny has no latents: keys and values of all heads. Bytes are of bfloat16, over all layers."""
    config = build(variant, tmp_path).config.language
    cache = PagedKVCache(config, num_pages=3, dtype=torch.bfloat16, device=torch.device("meta"))
    for index in range(config.num_hidden_layers):
        assert cache.layer(index).rows.shape == (3 * PAGE_TOKENS, values_per_layer)
    assert cache.num_bytes / (3 * PAGE_TOKENS) == bytes_per_token
