"""Nano's configuration and files: the complete architecture in small, in the published layout.

Random weights to begin with, and the folder that a trained model is saved to.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from model.checkpoint import SINGLE_FILE, checkpoint_tensors
from model.config_files import load_model_config
from model.deepseek_vl2 import DeepseekVL2
from model.nano.vocabulary import IMAGE, PAD, make_tokenizer

TILE_PX, PATCH_PX = 112, 14
MAX_TILES = 9
VOCAB_SIZE = 1088
"""The tokenizer's 1046, rounded up to a multiple of 64."""


def resolutions() -> list[list[int]]:
    """All grids of at most 9 tiles, fewest tiles first, as in the released checkpoints."""
    grids = [(w, h) for w in range(1, MAX_TILES + 1) for h in range(1, MAX_TILES + 1) if w * h <= MAX_TILES]
    return [[w * TILE_PX, h * TILE_PX] for w, h in sorted(grids, key=lambda grid: (grid[0] * grid[1], grid))]


def model_config() -> dict[str, Any]:
    return {
        "architectures": ["DeepseekVLV2ForCausalLM"],
        "model_type": "deepseek_vl_v2",
        "tile_tag": "2D",
        "global_view_pos": "head",
        "candidate_resolutions": resolutions(),
        "torch_dtype": "bfloat16",
        "vision_config": {
            "model_type": "vision",
            "image_size": TILE_PX,
            "patch_size": PATCH_PX,
            "width": 192,
            "layers": 5,
            "heads": 6,
            "mlp_ratio": 3.0,
        },
        "projector_config": {"model_type": "mlp_projector", "input_dim": 192, "n_embed": 192, "mlp_ratio": 2},
        "language_config": {
            "model_type": "deepseek_v2",
            "vocab_size": VOCAB_SIZE,
            "hidden_size": 192,
            "intermediate_size": 512,
            "moe_intermediate_size": 96,
            "num_hidden_layers": 6,
            "num_attention_heads": 6,
            "num_key_value_heads": 6,
            "n_routed_experts": 8,
            "n_shared_experts": 2,
            "num_experts_per_tok": 2,
            "first_k_dense_replace": 1,
            "topk_method": "noaux_tc",
            "scoring_func": "sigmoid",
            "norm_topk_prob": True,
            "routed_scaling_factor": 2.0,
            "n_group": 1,
            "topk_group": 1,
            "use_mla": True,
            "q_lora_rank": None,
            "kv_lora_rank": 64,
            "qk_nope_head_dim": 32,
            "qk_rope_head_dim": 16,
            "v_head_dim": 32,
            "max_position_embeddings": 2048,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
    }


def processor_config() -> dict[str, Any]:
    return {
        "processor_class": "DeepseekVLV2Processor",
        "candidate_resolutions": resolutions(),
        "patch_size": PATCH_PX,
        "downsample_ratio": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_token": IMAGE,
        "pad_token": PAD,
        "sft_format": "deepseek",
    }


def write_architecture(folder: Path) -> None:
    """Everything but the weights: configuration, processor and tokenizer."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", model_config()), ("processor_config.json", processor_config())):
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    tokenizer = make_tokenizer()
    assert tokenizer.get_vocab_size() <= VOCAB_SIZE
    tokenizer.save(str(folder / "tokenizer.json"))


def random_model(folder: Path, seed: int) -> DeepseekVL2:
    """The model of a folder's configuration, float32, with random weights that keep the scale of what goes through."""
    model = DeepseekVL2(load_model_config(folder))
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith(("pos_embed", "embed_tokens.weight", "gate.weight", "image_newline", "view_separator")):
                parameter.normal_(0, 0.02, generator=generator)
            elif parameter.dim() >= 2:
                fan_in = parameter.shape[-1] if parameter.dim() < 4 else parameter[0].numel()
                parameter.normal_(0, 1 / math.sqrt(fan_in), generator=generator)
            elif name.endswith("bias"):
                parameter.zero_()
    return model


def as_trained(model: DeepseekVL2, dtype: torch.dtype) -> DeepseekVL2:
    """In the dtypes that `model.checkpoint.load` gives it: routers stay float32."""
    model.to(dtype)
    for name, module in model.named_modules():
        if name.endswith("mlp.gate"):
            module.float()
    return model


def save_weights(model: nn.Module, folder: Path) -> None:
    assert isinstance(model, DeepseekVL2)
    tensors: dict[str, Tensor] = {
        key: tensor if key.endswith("e_score_correction_bias") else tensor.to(torch.bfloat16)
        for key, tensor in checkpoint_tensors(model).items()
    }
    save_file(tensors, folder / SINGLE_FILE, metadata={"format": "pt"})
