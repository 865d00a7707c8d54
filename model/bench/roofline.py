"""FLOPs and bytes of a model's phases -> the rates that a machine could reach at best. Arithmetic only: needs no torch.

A multiply-add counts as two operations. Counted are the matrix products, attention, and the weights and cache rows that
decoding must read; not norms, activations, choosing of experts or tokens, the lm_head of prompts, and whatever the CPU
does to an image before. Phases are taken one after the other: an engine that overlaps them can beat `image_s`.
Names in formulas: D width, H heads, S tokens of a prompt, B sequences that decode at once, E routed experts, K chosen.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from model.config import LanguageConfig, ModelConfig
from model.kv_cache import kv_bytes_per_token

_ROUTER_BYTES = 4
"""Routers are float32 whatever the model's dtype."""


@dataclass(frozen=True, kw_only=True)
class MachineRates:
    matmul_flops_per_s: float
    """In the dtype used."""
    copy_bytes_per_s: float
    """Bytes read plus bytes written, as of a copy in device memory."""

    def best(self, other: "MachineRates") -> "MachineRates":
        """The higher of each rate."""
        return MachineRates(
            matmul_flops_per_s=max(self.matmul_flops_per_s, other.matmul_flops_per_s),
            copy_bytes_per_s=max(self.copy_bytes_per_s, other.copy_bytes_per_s),
        )


@dataclass(frozen=True, kw_only=True)
class ImageWork:
    """One image with all prompts about it.

    The image and what precedes it (`num_shared_tokens`) is computed once, `num_own_tokens` once per prompt.
    """

    num_tiles: int
    num_shared_tokens: int
    num_own_tokens: Sequence[int]
    num_output_tokens: int
    """Of each prompt."""


def vision_tile_flops(config: ModelConfig) -> int:
    """Tower and projector, for one tile."""
    vision = config.vision
    hidden, patches = int(vision.width * vision.mlp_ratio), vision.num_patches
    block_weights = 4 * vision.width**2 + 2 * vision.width * hidden
    attention = 4 * patches**2 * vision.width
    patch_embedding = 2 * patches * 3 * vision.patch_size**2 * vision.width
    projector = 2 * config.tokens_per_side**2 * _projector_weights(config)
    return vision.layers * (2 * patches * block_weights + attention) + patch_embedding + projector


def decoder_flops_per_token(config: LanguageConfig) -> int:
    """All layers' matrix products for one token, without attention over the context and without the lm_head."""
    moe_layers = _num_moe_layers(config)
    expert, experts = _expert_weights(config), config.num_experts_per_tok + (config.n_shared_experts or 0)
    weights = (
        config.num_hidden_layers * _attention_weights(config)
        + (config.num_hidden_layers - moe_layers) * _dense_weights(config)
        + moe_layers * (experts * expert + _router_weights(config))
    )
    return 2 * weights


def prefill_flops(config: LanguageConfig, num_tokens: int, *, num_cached_tokens: int = 0) -> int:
    """`num_tokens` of a prompt after `num_cached_tokens` of it, with causal attention over expanded keys and values.

    Attention takes 2 (q width + v width) per head and pair of tokens, and a causal mask leaves half of the S^2 pairs.
    """
    if config.use_mla:
        head_width = config.qk_nope_head_dim + config.qk_rope_head_dim + config.v_head_dim
    else:
        head_width = 2 * config.head_dim
    end = num_cached_tokens + num_tokens
    pairs_twice = end**2 - num_cached_tokens**2
    attention = config.num_hidden_layers * config.num_attention_heads * head_width * pairs_twice
    return decoder_flops_per_token(config) * num_tokens + attention


def decode_flops(config: LanguageConfig, num_context_tokens: float) -> float:
    """One token with the lm_head; MLA absorbed, attending on the latents (arXiv 2405.04434, section 2.1)."""
    if config.use_mla:
        head_width = 2 * config.kv_lora_rank + config.qk_rope_head_dim
    else:
        head_width = 2 * config.head_dim
    attention = config.num_hidden_layers * config.num_attention_heads * 2 * head_width * num_context_tokens
    return decoder_flops_per_token(config) + 2 * config.hidden_size * config.vocab_size + attention


def expected_experts(config: LanguageConfig, num_tokens: int) -> float:
    """Distinct routed experts of a layer that `num_tokens` choose, if all are alike to them: E (1 - (1 - K/E)^B)."""
    if not config.n_routed_experts:
        return 0.0
    missed = (1 - config.num_experts_per_tok / config.n_routed_experts) ** num_tokens
    return config.n_routed_experts * (1 - missed)


def decode_weight_bytes(config: LanguageConfig, batch: int, bytes_per_value: int) -> float:
    """Weights that one step of `batch` sequences reads: everything but the embedding table and experts nobody chose."""
    moe_layers = _num_moe_layers(config)
    shared_and_chosen = (config.n_shared_experts or 0) + expected_experts(config, batch)
    weights = (
        config.num_hidden_layers * _attention_weights(config)
        + (config.num_hidden_layers - moe_layers) * _dense_weights(config)
        + moe_layers * shared_and_chosen * _expert_weights(config)
        + config.hidden_size * config.vocab_size
    )
    return weights * bytes_per_value + moe_layers * _router_weights(config) * _ROUTER_BYTES


def decode_step_bytes(config: LanguageConfig, batch: int, num_context_tokens: float, bytes_per_value: int) -> float:
    """Weights, and each sequence's context: contexts that lie in shared pages count as often as they are read."""
    context = batch * num_context_tokens * kv_bytes_per_token(config, bytes_per_value)
    return decode_weight_bytes(config, batch, bytes_per_value) + context


def vision_tiles_per_s(config: ModelConfig, rates: MachineRates) -> float:
    return rates.matmul_flops_per_s / vision_tile_flops(config)


def prefill_tokens_per_s(config: LanguageConfig, num_tokens: int, rates: MachineRates) -> float:
    """Of whole prompts of `num_tokens`."""
    return num_tokens * rates.matmul_flops_per_s / prefill_flops(config, num_tokens)


def decode_step_s(
    config: LanguageConfig, batch: int, num_context_tokens: float, rates: MachineRates, bytes_per_value: int
) -> float:
    """The slower of reading and computing, which a good kernel overlaps."""
    reading = decode_step_bytes(config, batch, num_context_tokens, bytes_per_value) / rates.copy_bytes_per_s
    return max(reading, batch * decode_flops(config, num_context_tokens) / rates.matmul_flops_per_s)


def decode_tokens_per_s(
    config: LanguageConfig, batch: int, num_context_tokens: float, rates: MachineRates, bytes_per_value: int
) -> float:
    return batch / decode_step_s(config, batch, num_context_tokens, rates, bytes_per_value)


def image_s(config: ModelConfig, work: ImageWork, batch: int, rates: MachineRates, bytes_per_value: int) -> float:
    """Vision, prefill and decode of one image in series, its prompts decoding among `batch` sequences."""
    language, shared = config.language, work.num_shared_tokens
    flops = work.num_tiles * vision_tile_flops(config) + prefill_flops(language, shared)
    decode_s = 0.0
    for own in work.num_own_tokens:
        flops += prefill_flops(language, own, num_cached_tokens=shared)
        mean_context = shared + own + work.num_output_tokens / 2
        step_s = decode_step_s(language, batch, mean_context, rates, bytes_per_value)
        decode_s += work.num_output_tokens * step_s / batch
    return flops / rates.matmul_flops_per_s + decode_s


def _projector_weights(config: ModelConfig) -> int:
    projector = config.projector
    hidden = projector.n_embed * projector.mlp_ratio
    widths = [projector.input_dim * projector.downsample_ratio**2, *[hidden] * (projector.depth - 1), projector.n_embed]
    return sum(inner * outer for inner, outer in itertools.pairwise(widths))


def _attention_weights(config: LanguageConfig) -> int:
    """Of one layer."""
    hidden, heads = config.hidden_size, config.num_attention_heads
    if not config.use_mla:
        return 2 * hidden * (heads + config.num_key_value_heads) * config.head_dim
    q_width = heads * (config.qk_nope_head_dim + config.qk_rope_head_dim)
    queries = hidden * q_width if config.q_lora_rank is None else config.q_lora_rank * (hidden + q_width)
    down = hidden * (config.kv_lora_rank + config.qk_rope_head_dim)
    up = config.kv_lora_rank * heads * (config.qk_nope_head_dim + config.v_head_dim)
    return queries + down + up + heads * config.v_head_dim * hidden


def _num_moe_layers(config: LanguageConfig) -> int:
    return sum(config.is_moe_layer(layer) for layer in range(config.num_hidden_layers))


def _dense_weights(config: LanguageConfig) -> int:
    return 3 * config.hidden_size * config.intermediate_size


def _expert_weights(config: LanguageConfig) -> int:
    return 3 * config.hidden_size * config.moe_intermediate_size


def _router_weights(config: LanguageConfig) -> int:
    return config.hidden_size * (config.n_routed_experts or 0)
