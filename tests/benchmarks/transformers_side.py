"""Our decoder -> `transformers`' DeepseekV2ForCausalLM on the same weights, generating in static batches.

Weights are shared, not copied: both sides read the same memory. Knows nothing of timing.
"""

import statistics
from collections.abc import Sequence as Seq

import torch
from torch import Tensor
from transformers import DeepseekV2Config, DeepseekV2ForCausalLM, GenerationConfig

from model.config import LanguageConfig
from model.deepseek_vl2 import DeepseekVL2
from tests.benchmarks.comparison import rate_of

EXPERTS_IMPLEMENTATIONS = ("eager", "grouped_mm", "batched_mm")
_PAD_ID = 0
"""Any id: the attention mask hides it."""
_SHARED_KEYS = (
    *("vocab_size", "hidden_size", "intermediate_size", "moe_intermediate_size", "num_hidden_layers"),
    *("num_attention_heads", "num_key_value_heads", "attention_bias", "rms_norm_eps", "max_position_embeddings"),
    *("n_shared_experts", "n_routed_experts", "num_experts_per_tok", "first_k_dense_replace"),
    *("routed_scaling_factor", "topk_method", "kv_lora_rank", "q_lora_rank"),
    *("qk_rope_head_dim", "qk_nope_head_dim", "v_head_dim"),
)
"""Of the configuration, which both sides spell as DeepSeek does."""


def transformers_model(model: DeepseekVL2) -> DeepseekV2ForCausalLM:
    """Raises ValueError for a configuration that `transformers` computes in another way."""
    config = model.config.language
    if not config.use_mla or config.topk_method != "greedy" or config.norm_topk_prob:
        raise ValueError("transformers' DeepseekV2 computes MLA with greedy, unnormalised routing only")
    with torch.device("meta"):
        theirs = DeepseekV2ForCausalLM(_their_config(config))
    theirs.load_state_dict(_their_weights(model), strict=True, assign=True)
    theirs.model.rotary_emb = type(theirs.model.rotary_emb)(theirs.config).to(
        model.device
    )  # its buffers are no weights
    return theirs.eval().requires_grad_(False)


def generate(model: DeepseekV2ForCausalLM, prompts: Seq[Seq[int]], num_tokens: int) -> list[list[int]]:
    """Greedy ids after each prompt, one left-padded batch, never stopped by an end of sentence."""
    longest = max(len(prompt) for prompt in prompts)
    ids = torch.tensor([[_PAD_ID] * (longest - len(prompt)) + list(prompt) for prompt in prompts])
    mask = torch.tensor([[0] * (longest - len(prompt)) + [1] * len(prompt) for prompt in prompts])
    with torch.inference_mode():
        output = model.generate(
            ids.to(model.device),
            attention_mask=mask.to(model.device),
            generation_config=GenerationConfig(
                max_new_tokens=num_tokens,
                do_sample=False,
                use_cache=True,
                eos_token_id=None,
                pad_token_id=_PAD_ID,
            ),
        )
    new_ids = output[:, longest:].tolist()
    assert all(len(row) == num_tokens for row in new_ids), "a sequence of the batch was cut short"
    return new_ids


def logits(model: DeepseekV2ForCausalLM, ids: Seq[int]) -> Tensor:
    """float32 [T, V] on the CPU."""
    with torch.inference_mode():
        return model(torch.tensor([list(ids)], device=model.device)).logits[0].float().cpu()


def rate_experts_implementations(
    model: DeepseekV2ForCausalLM, prompts: Seq[Seq[int]], *, num_tokens: int, repeats: int
) -> dict[str, float]:
    """Median output tokens/s of each way `transformers` can run the experts; leaves the fastest one chosen."""
    rates = {}
    for name in EXPERTS_IMPLEMENTATIONS:
        model.set_experts_implementation(name)
        generate(model, prompts, 2)
        turns = [
            rate_of(num_tokens * len(prompts), lambda: generate(model, prompts, num_tokens)) for _ in range(repeats)
        ]
        rates[name] = statistics.median(turns)
    model.set_experts_implementation(max(rates, key=rates.__getitem__))
    return rates


def _their_config(config: LanguageConfig) -> DeepseekV2Config:
    return DeepseekV2Config(
        **{name: getattr(config, name) for name in _SHARED_KEYS},
        rope_parameters={"rope_type": "default", "rope_theta": config.rope_theta},
        bos_token_id=config.bos_token_id,
        eos_token_id=config.eos_token_id,
        pad_token_id=None,
    )


def _their_weights(model: DeepseekVL2) -> dict[str, Tensor]:
    """Their names; the two halves of a dense layer's gate and up matrix are views, a stack of experts is theirs too."""
    weights: dict[str, Tensor] = {}
    for name, parameter in model.language.named_parameters():
        key = name if name.startswith("lm_head") else f"model.{name}"
        if "gate_up_proj" in name and ".experts." not in name:
            gate, up = parameter.data.chunk(2)
            weights[key.replace("gate_up_proj", "gate_proj")] = gate
            weights[key.replace("gate_up_proj", "up_proj")] = up
        else:
            weights[key] = parameter.data
    return weights
