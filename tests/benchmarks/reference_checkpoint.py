"""The layout of a golden checkpoint, scaled up -> a folder that both implementations load, with random weights.

Knows nothing of timing. The tokenizer is the golden one; the vocabulary is padded, as published ones are.
"""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor

from model.checkpoint import SINGLE_FILE, checkpoint_tensors
from model.config_files import load_model_config
from tests import golden
from tests.benchmarks.random_models import num_active_parameters, num_parameters, random_model

_TEMPLATE = "small-like"
_TOKENIZER_FILES = ("processor_config.json", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, kw_only=True)
class CheckpointSize:
    """About 110 M parameters by default; the tower is a fourteenth of it, as in the published small model."""

    language_layers: int = 10
    hidden_size: int = 512
    vision_layers: int = 8
    vision_width: int = 288
    n_routed_experts: int = 16


def write_checkpoint(folder: Path, size: CheckpointSize, *, seed: int) -> dict[str, int]:
    """Writes config, processor, tokenizer and float32 weights; returns how many parameters there are of which kind."""
    template = golden.checkpoint_folder(_TEMPLATE)
    for name in _TOKENIZER_FILES:
        shutil.copy(template / name, folder / name)
    config = json.loads((template / "config.json").read_text(encoding="utf-8"))
    scale(config, size)
    (folder / "config.json").write_text(json.dumps(config, indent=1), encoding="utf-8")
    model = random_model(load_model_config(folder), seed=seed)
    tensors = checkpoint_tensors(model) | _unused_pooling(size.vision_width, config["vision_config"]["mlp_ratio"])
    save_file(tensors, folder / SINGLE_FILE, metadata={"format": "pt"})
    return {
        "parameters": num_parameters(model),
        "of the vision tower": num_parameters(model.vision),
        "of the decoder, per token": num_active_parameters(model),
    }


def scale(config: dict, size: CheckpointSize) -> None:
    config["torch_dtype"] = config["language_config"]["torch_dtype"] = "float32"
    config["vision_config"] |= {"layers": size.vision_layers, "width": size.vision_width}
    config["projector_config"] |= {"input_dim": size.vision_width, "n_embed": size.hidden_size}
    config["language_config"] |= {
        "vocab_size": 8192,
        "hidden_size": size.hidden_size,
        "num_hidden_layers": size.language_layers,
        "intermediate_size": 1376,
        "moe_intermediate_size": 352,
        "n_routed_experts": size.n_routed_experts,
        "num_experts_per_tok": 4,
        "num_attention_heads": 8,
        "num_key_value_heads": 8,
        "kv_lora_rank": 256,
        "qk_nope_head_dim": 64,
        "qk_rope_head_dim": 32,
        "v_head_dim": 64,
    }


def _unused_pooling(width: int, mlp_ratio: float) -> dict[str, Tensor]:
    """`attn_pool`, which published checkpoints carry and nobody reads; the reference wants it to be there."""
    hidden = int(width * mlp_ratio)
    shapes = {
        "latent": (1, 1, width),
        "q.weight": (width, width),
        "q.bias": (width,),
        "kv.weight": (2 * width, width),
        "kv.bias": (2 * width,),
        "proj.weight": (width, width),
        "proj.bias": (width,),
        "norm.weight": (width,),
        "norm.bias": (width,),
        "mlp.fc1.weight": (hidden, width),
        "mlp.fc1.bias": (hidden,),
        "mlp.fc2.weight": (width, hidden),
        "mlp.fc2.bias": (width,),
    }
    return {f"vision.attn_pool.{name}": torch.zeros(shape) for name, shape in shapes.items()}
