"""A seed -> the built-in checkpoint `nano`: the complete architecture in small, in the published layout.

Run `python -m model.nano.create` to write `model/nano/checkpoint/` again; the same seed gives the same bytes. The
weights are random: they exercise every part of the model but know nothing of images.
"""

import json
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from model.checkpoint import SINGLE_FILE, checkpoint_tensors
from model.checkpoint_files import NANO_FOLDER
from model.config import load_model_config
from model.deepseek_vl2 import DeepseekVL2
from model.tokenizer import ASSISTANT, DET, DET_END, GROUNDING, REF, REF_END, USER

SEED = 0
TILE_PX = 112
MAX_TILES = 9
BOS, EOS, PAD, IMAGE = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>", "<image>"
BPE_VOCAB_SIZE = 512

CORPUS = [
    "Describe the image in detail. A red circle is on the left and a large blue square is on the right.",
    "Read all the text in the image, line by line. What colour is the small triangle? It is green.",
    "How many shapes are there? There are 3 shapes: a yellow star, a purple cross and an orange diamond.",
    "The picture shows a page with several lines of text and numbers 0 1 2 3 4 5 6 7 8 9.",
    "Is there a person in the image? Yes, there is one person standing between the two houses.",
    "Locate the object of the same category in the second image. The sign above the door says open.",
]


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
            "patch_size": 14,
            "width": 96,
            "layers": 2,
            "heads": 4,
            "mlp_ratio": 3.0,
        },
        "projector_config": {"model_type": "mlp_projector", "input_dim": 96, "n_embed": 96},
        "language_config": {
            "model_type": "deepseek_v2",
            "vocab_size": 528,
            "hidden_size": 96,
            "intermediate_size": 256,
            "moe_intermediate_size": 64,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
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
            "kv_lora_rank": 32,
            "qk_nope_head_dim": 16,
            "qk_rope_head_dim": 8,
            "v_head_dim": 16,
            "max_position_embeddings": 2048,
            "bos_token_id": 0,
            "eos_token_id": 1,
        },
    }


def processor_config() -> dict[str, Any]:
    return {
        "processor_class": "DeepseekVLV2Processor",
        "candidate_resolutions": resolutions(),
        "patch_size": 14,
        "downsample_ratio": 2,
        "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5],
        "image_token": IMAGE,
        "pad_token": PAD,
        "sft_format": "deepseek",
    }


def make_tokenizer() -> Tokenizer:
    """Byte-level BPE with single digits, and the family's control tokens around it."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=BPE_VOCAB_SIZE,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(CORPUS, trainer)
    control = [IMAGE, REF, REF_END, DET, DET_END, GROUNDING, USER, ASSISTANT]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in control])
    return tokenizer


def write_checkpoint(folder: Path, seed: int = SEED) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in (("config.json", model_config()), ("processor_config.json", processor_config())):
        (folder / name).write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    tokenizer = make_tokenizer()
    tokenizer.save(str(folder / "tokenizer.json"))
    config = load_model_config(folder)
    assert tokenizer.get_vocab_size() <= config.language.vocab_size
    model = DeepseekVL2(config)
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in model.named_parameters():
        if parameter.dim() >= 2:  # so that activations keep their scale from layer to layer
            parameter.data.normal_(0, 1 / math.sqrt(parameter[0].numel()), generator=generator)
        elif not name.endswith("weight"):
            parameter.data.normal_(0, 0.02, generator=generator)
    tensors = {
        key: tensor if key.endswith("e_score_correction_bias") else tensor.to(torch.bfloat16)
        for key, tensor in checkpoint_tensors(model).items()
    }
    save_file(tensors, folder / SINGLE_FILE, metadata={"format": "pt"})


if __name__ == "__main__":
    write_checkpoint(NANO_FOLDER)
