"""Hidden states -> attention outputs: multi-head (MHA, with grouped queries) and multi-head latent attention (MLA).

Prefill expands keys and values per head; decode of MLA is absorbed, attending on the latents themselves. Both read
one packed step (`StepLayout`). Shapes: T tokens, D width, H heads, G kv heads, S context, B decoding sequences,
L kv_lora_rank, R rotated width, W cache row width.
"""

from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import LanguageConfig
from model.kv_cache import LayerCache, PrefillSpan, StepLayout
from model.rope import Rotation, mla_softmax_scale

MLA_NORM_EPS = 1e-6
"""Of the norms inside MLA, whatever the checkpoint's rms_norm_eps says (reference-facts, section 6)."""


class RMSNorm(nn.Module):
    """Statistics in float32, cast back, then the weight."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x_float = x.float()
        scale = torch.rsqrt(x_float.pow(2).mean(-1, keepdim=True) + self.eps)
        return self.weight * (x_float * scale).to(x.dtype)


def make_attention(config: LanguageConfig) -> "Attention":
    return MultiHeadLatentAttention(config) if config.use_mla else MultiHeadAttention(config)


class Attention(nn.Module, ABC):
    """What both kinds share: write this step's rows to the cache, attend span by span, then for all decoding rows."""

    o_proj: nn.Linear

    def forward(self, hidden_TD: Tensor, rotation: Rotation, layout: StepLayout, cache: LayerCache | None) -> Tensor:
        queries, rows_TW = self.project(hidden_TD, rotation)
        if cache is not None:
            assert layout.new_slots_T is not None
            cache.write(layout.new_slots_T, rows_TW)
        outputs = [self._prefill_span(queries, rows_TW, span, cache) for span in layout.prefill]
        if layout.decode_slots_BS is not None:
            assert cache is not None
            context_BSW = cache.read(layout.decode_slots_BS)
            outputs.append(self.decode(queries[layout.num_prefill_tokens :], context_BSW, layout.decode_mask_BS))
        return self.o_proj(torch.cat(outputs))

    def _prefill_span(self, queries: Tensor, rows_TW: Tensor, span: PrefillSpan, cache: LayerCache | None) -> Tensor:
        if cache is None or span.context_slots_S is None:
            context_SW = rows_TW[span.start : span.end]
        else:
            context_SW = cache.read(span.context_slots_S)
        return self.prefill(queries[span.start : span.end], context_SW)

    @abstractmethod
    def project(self, hidden_TD: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """Rotated queries [T, H, q width] and the cache rows [T, W] of the same tokens."""

    @abstractmethod
    def prefill(self, queries_THQ: Tensor, context_SW: Tensor) -> Tensor:
        """The last T of S context tokens attend causally to all of them; returns [T, H * v width]."""

    @abstractmethod
    def decode(self, queries_BHQ: Tensor, context_BSW: Tensor, mask_BS: Tensor | None) -> Tensor:
        """One token of each sequence attends to its own context; returns [B, H * v width]."""


class MultiHeadAttention(Attention):
    """Llama-style attention (`use_mla` false); query, key and value are rotated over their whole head, half-split."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim, bias = config.head_dim, config.attention_bias
        self.q_proj = nn.Linear(config.hidden_size, self.num_heads * self.head_dim, bias=bias)
        self.k_proj = nn.Linear(config.hidden_size, self.num_kv_heads * self.head_dim, bias=bias)
        self.v_proj = nn.Linear(config.hidden_size, self.num_kv_heads * self.head_dim, bias=bias)
        self.o_proj = nn.Linear(self.num_heads * self.head_dim, config.hidden_size, bias=bias)

    def project(self, hidden_TD: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        q_THR = rotation.apply(self.q_proj(hidden_TD).unflatten(-1, (self.num_heads, -1)))
        k_TGR = rotation.apply(self.k_proj(hidden_TD).unflatten(-1, (self.num_kv_heads, -1)))
        return q_THR, torch.cat([k_TGR.flatten(1), self.v_proj(hidden_TD)], dim=-1)

    def prefill(self, queries_THQ: Tensor, context_SW: Tensor) -> Tensor:
        k_SGR, v_SGR = context_SW.unflatten(-1, (2, self.num_kv_heads, self.head_dim)).unbind(1)
        output_HTR = _causal(queries_THQ, k_SGR, v_SGR, scale=self.head_dim**-0.5)
        return output_HTR.transpose(0, 1).flatten(1)

    def decode(self, queries_BHQ: Tensor, context_BSW: Tensor, mask_BS: Tensor | None) -> Tensor:
        k, v = context_BSW.unflatten(-1, (2, self.num_kv_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
        return _masked(queries_BHQ, k, v, mask_BS, scale=self.head_dim**-0.5).flatten(1)


class MultiHeadLatentAttention(Attention):
    """MLA (arXiv 2405.04434, section 2.1): keys and values of all heads come from one latent per token.

    A cache row is [normalised latent L | rotated key R], the key shared by all heads.
    """

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.num_heads, self.kv_lora_rank = config.num_attention_heads, config.kv_lora_rank
        self.nope_dim, self.rope_dim, self.v_dim = (
            config.qk_nope_head_dim,
            config.qk_rope_head_dim,
            config.v_head_dim,
        )
        self.scale = mla_softmax_scale(config)
        hidden, bias = config.hidden_size, config.attention_bias
        q_width = self.num_heads * (self.nope_dim + self.rope_dim)
        self.q_lora_rank = config.q_lora_rank
        if config.q_lora_rank is None:
            self.q_proj = nn.Linear(hidden, q_width, bias=False)
        else:
            self.q_a_proj = nn.Linear(hidden, config.q_lora_rank, bias=bias)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, MLA_NORM_EPS)
            self.q_b_proj = nn.Linear(config.q_lora_rank, q_width, bias=False)
        self.kv_a_proj_with_mqa = nn.Linear(hidden, self.kv_lora_rank + self.rope_dim, bias=bias)
        self.kv_a_layernorm = RMSNorm(self.kv_lora_rank, MLA_NORM_EPS)
        self.kv_b_proj = nn.Linear(self.kv_lora_rank, self.num_heads * (self.nope_dim + self.v_dim), bias=False)
        self.o_proj = nn.Linear(self.num_heads * self.v_dim, hidden, bias=bias)

    def project(self, hidden_TD: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        if self.q_lora_rank is None:
            q = self.q_proj(hidden_TD)
        else:
            q = self.q_b_proj(self.q_a_layernorm(self.q_a_proj(hidden_TD)))
        q_nope, q_rope = q.unflatten(-1, (self.num_heads, -1)).split([self.nope_dim, self.rope_dim], dim=-1)
        latent_TL, key_TR = self.kv_a_proj_with_mqa(hidden_TD).split([self.kv_lora_rank, self.rope_dim], dim=-1)
        key_TR = rotation.apply_interleaved(key_TR[:, None])[:, 0]
        queries = torch.cat([q_nope, rotation.apply_interleaved(q_rope)], dim=-1)
        return queries, torch.cat([self.kv_a_layernorm(latent_TL), key_TR], dim=-1)

    def prefill(self, queries_THQ: Tensor, context_SW: Tensor) -> Tensor:
        latent_SL, key_SR = context_SW.split([self.kv_lora_rank, self.rope_dim], dim=-1)
        kv = self.kv_b_proj(latent_SL).unflatten(-1, (self.num_heads, -1))
        k_nope, v_SHV = kv.split([self.nope_dim, self.v_dim], dim=-1)
        k_SHQ = torch.cat([k_nope, key_SR[:, None].expand(-1, self.num_heads, -1)], dim=-1)
        return _causal(queries_THQ, k_SHQ, v_SHV, scale=self.scale).transpose(0, 1).flatten(1)

    def decode(self, queries_BHQ: Tensor, context_BSW: Tensor, mask_BS: Tensor | None) -> Tensor:
        up_HXL = self.kv_b_proj.weight.unflatten(0, (self.num_heads, -1))
        up_k_HNL, up_v_HVL = up_HXL.split([self.nope_dim, self.v_dim], dim=1)
        q_nope, q_rope = queries_BHQ.split([self.nope_dim, self.rope_dim], dim=-1)
        q_latent = torch.einsum("bhn,hnl->bhl", q_nope, up_k_HNL)
        queries = torch.cat([q_latent, q_rope], dim=-1)
        context = context_BSW[:, None]  # one kv head, shared by all query heads
        latents = context[..., : self.kv_lora_rank]
        attended = _masked(queries, context, latents, mask_BS, scale=self.scale)
        return torch.einsum("bhl,hvl->bhv", attended, up_v_HVL).flatten(1)


def _causal(q_THQ: Tensor, k_SGQ: Tensor, v_SGV: Tensor, *, scale: float) -> Tensor:
    """The last T of S tokens attend to what lies before them; returns [H, T, V]."""
    num_new, num_context = len(q_THQ), len(k_SGQ)
    q, k, v = (x.transpose(0, 1)[None] for x in (q_THQ, k_SGQ, v_SGV))
    gqa = q.shape[1] != k.shape[1]
    if num_new == num_context:
        return F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, enable_gqa=gqa)[0]
    mask = torch.ones(num_new, num_context, dtype=torch.bool, device=q.device).tril(num_context - num_new)
    return F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=scale, enable_gqa=gqa)[0]


def _masked(q_BHQ: Tensor, k_BGSQ: Tensor, v_BGSV: Tensor, mask_BS: Tensor | None, *, scale: float) -> Tensor:
    """One query per sequence and head; returns [B, H, V]."""
    # Heads that share a kv head stand as its queries: `enable_gqa` would copy the context once per head on CUDA.
    q_BGhQ = q_BHQ.unflatten(1, (k_BGSQ.shape[1], -1))
    mask = None if mask_BS is None else mask_BS[:, None, None]
    return F.scaled_dot_product_attention(q_BGhQ, k_BGSQ, v_BGSV, attn_mask=mask, scale=scale).flatten(1, 2)
