"""The shapes of the released DeepSeek-VL2 variants, and of a small relative for CPUs, without any weights.

Written as in the published `config.json` files, so that what those leave out is filled in as it is for a checkpoint;
max_position_embeddings alone is spelled out for all of them. Knows no tensors.
"""

from collections.abc import Mapping
from typing import Any

from model.config import ModelConfig
from model.config_files import parse_model_config

_TILE_PX = 384
_GRIDS = (
    *((1, 1), (1, 2), (2, 1), (1, 3), (3, 1), (1, 4), (4, 1), (2, 2), (1, 5), (5, 1), (1, 6), (6, 1)),
    *((2, 3), (3, 2), (1, 7), (7, 1), (1, 8), (8, 1), (2, 4), (4, 2), (1, 9), (9, 1), (3, 3)),
)
_SIGLIP_SO400M = {"layers": 27, "mlp_ratio": 3.7362, "patch_size": 14, "width": 1152}
_COMMON = {
    "first_k_dense_replace": 1,
    "n_routed_experts": 64,
    "n_shared_experts": 2,
    "num_experts_per_tok": 6,
    "q_lora_rank": None,
    "n_group": 1,
    "topk_group": 1,
    "max_position_embeddings": 4096,
}
_LANGUAGE: Mapping[str, dict[str, Any]] = {
    "tiny": {
        **_COMMON, "hidden_size": 1280, "num_hidden_layers": 12, "num_attention_heads": 10, "num_key_value_heads": 10,
        "intermediate_size": 6848, "moe_intermediate_size": 896, "topk_method": "greedy",
        "use_mla": False, "kv_lora_rank": None, "qk_nope_head_dim": 0, "qk_rope_head_dim": 0, "v_head_dim": 0,
        "vocab_size": 129280,
    },
    "small": {
        **_COMMON, "hidden_size": 2048, "num_hidden_layers": 27, "num_attention_heads": 16, "num_key_value_heads": 16,
        "intermediate_size": 10944, "moe_intermediate_size": 1408, "topk_method": "greedy",
        "vocab_size": 102400,
    },
    "27b": {
        **_COMMON, "hidden_size": 2560, "n_routed_experts": 72, "intermediate_size": 12288,
        "moe_intermediate_size": 1536,
        "topk_method": "noaux_tc", "scoring_func": "sigmoid", "norm_topk_prob": True, "routed_scaling_factor": 2.0,
        "vocab_size": 129280,
    },
    # MLA keeps the family's widths (512 + 64 per cached token): kernels are made for them.
    "bench-150m": {
        **_COMMON, "hidden_size": 512, "num_hidden_layers": 8, "num_attention_heads": 4,
        "n_routed_experts": 32, "num_experts_per_tok": 4, "intermediate_size": 1408, "moe_intermediate_size": 256,
        "topk_method": "greedy", "vocab_size": 16384,
    },
}  # fmt: skip
_SMALL_TOWER = {"image_size": 224, "layers": 12, "heads": 6, "mlp_ratio": 4.0, "patch_size": 14, "width": 384}

VARIANTS = tuple(_LANGUAGE)
RELEASED_VARIANTS = ("tiny", "small", "27b")


def variant_config(name: str) -> ModelConfig:
    """The configuration of one of `VARIANTS`."""
    language = _LANGUAGE[name]
    vision = _SIGLIP_SO400M if name in RELEASED_VARIANTS else _SMALL_TOWER
    tile_px = vision.get("image_size", _TILE_PX)
    document = {
        "tile_tag": "2D",
        "global_view_pos": "head",
        "candidate_resolutions": [(wide * tile_px, high * tile_px) for wide, high in _GRIDS],
        "vision_config": vision,
        "projector_config": {"input_dim": vision["width"], "n_embed": language["hidden_size"]},
        "language_config": language,
    }
    return parse_model_config(document, f"variant {name}")
