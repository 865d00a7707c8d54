"""A configuration and a seed -> our model with random weights whose logits and routing are as spread as trained ones.

Knows no other implementation. Shapes: E routed experts.
"""

import torch
from torch import nn

from model.config import LanguageConfig, ModelConfig, ProjectorConfig, VisionConfig
from model.deepseek_vl2 import DeepseekVL2

_LOGIT_STD = 2.0
"""Of random logits: two best tokens are then further apart than the noise of another order of float operations."""


def random_model(config: ModelConfig, *, seed: int, dtype: torch.dtype = torch.float32) -> DeepseekVL2:
    """Parameters are float32 draws, then cast, so that every dtype has the same model; the router stays float32."""
    generator = torch.Generator().manual_seed(seed)
    model = DeepseekVL2(config).eval().requires_grad_(False)
    with torch.inference_mode():
        for name, parameter in model.named_parameters():
            _draw(name, parameter, generator)
    for name, parameter in model.named_parameters():
        if not name.endswith(".mlp.gate.weight"):
            parameter.data = parameter.data.to(dtype)
    return model


def _draw(name: str, parameter: nn.Parameter, generator: torch.Generator) -> None:
    """Norms near 1, biases small, everything else so that it keeps the scale of what it multiplies."""
    if parameter.ndim == 1:
        is_norm = name.endswith("norm.weight") or ".norm1.weight" in name or ".norm2.weight" in name
        parameter.normal_(1.0 if is_norm or "layernorm.weight" in name else 0.0, 0.02, generator=generator)
        return
    # A row of an embedding is not summed over; the weight of a convolution or a linear map is, past its first axis
    # (past its second one in a stack of experts).
    is_table = name.endswith(("embed_tokens.weight", "pos_embed"))
    first_summed = 2 if ".experts." in name else 1
    fan_in = 1 if is_table else parameter[(0,) * first_summed].numel()
    std = fan_in**-0.5 * (_LOGIT_STD if name.endswith("lm_head.weight") else 1.0)
    parameter.normal_(0.0, std, generator=generator)


def text_model_config(*, num_layers: int, vocab_size: int = 8192, max_position_embeddings: int = 1024) -> ModelConfig:
    """DeepSeek-V2-Lite in small: MLA over a latent of 512, one dense layer, then 16 routed experts of which 4 answer.

    The vision tower is there because the model has one; text never reaches it. The vocabulary is small, so that the
    layers dominate as they do in the published models.
    """
    hidden_size, image_size, patch_size, vision_width = 768, 28, 14, 16
    return ModelConfig(
        vision=VisionConfig(image_size=image_size, patch_size=patch_size, width=vision_width, layers=1, heads=2),
        projector=ProjectorConfig(input_dim=vision_width, n_embed=hidden_size),
        language=LanguageConfig(
            vocab_size=vocab_size,
            hidden_size=hidden_size,
            intermediate_size=2048,
            moe_intermediate_size=384,
            num_hidden_layers=num_layers,
            num_attention_heads=8,
            num_key_value_heads=8,
            n_shared_experts=2,
            n_routed_experts=16,
            num_experts_per_tok=4,
            first_k_dense_replace=1,
            kv_lora_rank=512,
            q_lora_rank=None,
            qk_rope_head_dim=32,
            qk_nope_head_dim=64,
            v_head_dim=64,
            max_position_embeddings=max_position_embeddings,
        ),
        candidate_resolutions=((image_size, image_size),),
    )


def num_parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


def num_active_parameters(model: DeepseekVL2) -> int:
    """Of the decoder, read for one token: without the routed experts that did not answer, and without the embedding."""
    language, config = model.language, model.config.language
    routed = sum(p.numel() for name, p in language.named_parameters() if ".experts." in name)
    answering = routed * config.num_experts_per_tok // max(1, config.n_routed_experts or 1)
    return num_parameters(language) - language.embed_tokens.weight.numel() - routed + answering
