"""Hidden states -> attention outputs: multi-head (MHA, with grouped queries) and multi-head latent attention (MLA).

Spans of many tokens expand keys and values per head, block by block of their context; short spans and decoding rows of
MLA are absorbed, attending on the latents themselves. Both read one packed step (`StepLayout`). Shapes: T tokens, D
width, H heads, G kv heads, S context, B decoding sequences, P pages, L kv_lora_rank, R rotated width, N unrotated
width, Q = N + R, V value width, W cache row width.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from model.config import LanguageConfig
from model.kernels import paged_latent_decode, paged_latent_decode_cpu
from model.kv_cache import PAGE_TOKENS, LayerCache
from model.linear import Linear
from model.partial_attention import PartialAttention, attend_block, float_products
from model.rope import Rotation, mla_softmax_scale
from model.step_layout import DecodeRows, PrefillSpan, StepLayout

MLA_NORM_EPS = 1e-6
"""Of the norms inside MLA, whatever the checkpoint's rms_norm_eps says (reference-facts, section 6)."""


CONTEXT_BLOCK_TOKENS = 1024
"""Of the cached context that a span attends to at a time: bounds what is expanded, however long the context is."""


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

    o_proj: Linear

    def forward(self, hidden_TD: Tensor, rotation: Rotation, layout: StepLayout, cache: LayerCache | None) -> Tensor:
        queries, rows_TW = self.project(hidden_TD, rotation)
        if cache is not None:
            assert layout.new_slots_T is not None
            cache.write(layout.new_slots_T, rows_TW)
        outputs = [self._attend_span(queries, rows_TW, span, cache) for span in layout.prefill]
        if layout.decode is not None:
            assert cache is not None
            outputs.append(self.decode(queries[layout.num_prefill_tokens :], layout.decode, cache))
        return self.o_proj(outputs[0] if len(outputs) == 1 else torch.cat(outputs))

    def _attend_span(self, queries: Tensor, rows_TW: Tensor, span: PrefillSpan, cache: LayerCache | None) -> Tensor:
        """[T, H * v width]: the span's own tokens causally, and all cached ones before them, a block at a time."""
        q, own_TW = queries[span.start : span.end], rows_TW[span.start : span.end]
        attention = self.span_attention(q, span.num_context)
        partial = attention.attend(own_TW, True)
        for block_SW in _past_blocks(span, cache):
            partial = attention.attend(block_SW, False).merged(partial)
        return attention.values_of(partial.result(queries.dtype).transpose(0, 1))

    @abstractmethod
    def project(self, hidden_TD: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """Rotated queries [T, H, q width] and the cache rows [T, W] of the same tokens."""

    @abstractmethod
    def span_attention(self, queries_THQ: Tensor, num_context: int) -> "SpanAttention":
        """How these queries attend to rows of a context of that length."""

    @abstractmethod
    def reads_pages(self, cache: LayerCache) -> bool:
        """Whether decoding reads contexts where they lie; else it copies them out, as wide as the widest of them."""

    @abstractmethod
    def decode(self, queries_BHQ: Tensor, rows: DecodeRows, cache: LayerCache) -> Tensor:
        """One token of each sequence attends to its own context; returns [B, H * v width]."""


@dataclass(frozen=True)
class SpanAttention:
    """attend: (context rows [S, W], whether they are the queries' own) -> what the queries take from them.
    values_of: what they took of all rows [T, H, width] -> [T, H * v width]."""

    attend: Callable[[Tensor, bool], PartialAttention]
    values_of: Callable[[Tensor], Tensor]


def _join_heads(attended_THV: Tensor) -> Tensor:
    return attended_THV.flatten(1)


def _past_blocks(span: PrefillSpan, cache: LayerCache | None) -> Iterator[Tensor]:
    """Rows [S, W] of the tokens before the span."""
    for start in range(0, span.num_past, CONTEXT_BLOCK_TOKENS):
        assert cache is not None
        assert span.pages_P is not None
        end = min(span.num_past, start + CONTEXT_BLOCK_TOKENS)
        pages_P = span.pages_P[start // PAGE_TOKENS : -(-end // PAGE_TOKENS)]
        yield cache.read(pages_P)[: end - start]


class MultiHeadAttention(Attention):
    """Llama-style attention (`use_mla` false); query, key and value are rotated over their whole head, half-split."""

    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.num_heads, self.num_kv_heads = config.num_attention_heads, config.num_key_value_heads
        self.head_dim, bias = config.head_dim, config.attention_bias
        self.q_proj = Linear(config.hidden_size, self.num_heads * self.head_dim, bias=bias)
        self.k_proj = Linear(config.hidden_size, self.num_kv_heads * self.head_dim, bias=bias)
        self.v_proj = Linear(config.hidden_size, self.num_kv_heads * self.head_dim, bias=bias)
        self.o_proj = Linear(self.num_heads * self.head_dim, config.hidden_size, bias=bias)

    def project(self, hidden_TD: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        q_THR = rotation.apply(self.q_proj(hidden_TD).unflatten(-1, (self.num_heads, -1)))
        k_TGR = rotation.apply(self.k_proj(hidden_TD).unflatten(-1, (self.num_kv_heads, -1)))
        return q_THR, torch.cat([k_TGR.flatten(1), self.v_proj(hidden_TD)], dim=-1)

    def span_attention(self, queries_THQ: Tensor, num_context: int) -> SpanAttention:
        q_HTQ = queries_THQ.transpose(0, 1).contiguous()

        def attend(rows_SW: Tensor, causal: bool) -> PartialAttention:
            k, v = rows_SW.unflatten(-1, (2, self.num_kv_heads, self.head_dim)).permute(1, 2, 0, 3)
            return attend_block(q_HTQ, k, v, scale=self.head_dim**-0.5, causal=causal)

        return SpanAttention(attend, _join_heads)

    def reads_pages(self, cache: LayerCache) -> bool:
        return False

    def decode(self, queries_BHQ: Tensor, rows: DecodeRows, cache: LayerCache) -> Tensor:
        outputs = []
        for group in rows.groups:
            context_BSW = cache.read(group.pages_BP)
            k, v = context_BSW.unflatten(-1, (2, self.num_kv_heads, self.head_dim)).permute(2, 0, 3, 1, 4)
            # Heads that share a kv head stand as its queries: `enable_gqa` would copy the context per head on CUDA.
            q = queries_BHQ[group.start : group.end].unflatten(1, (self.num_kv_heads, -1))
            mask = group.mask_BS[:, None, None]
            attended = F.scaled_dot_product_attention(q, k, v, attn_mask=mask, scale=self.head_dim**-0.5)
            outputs.append(attended.flatten(1))
        return torch.cat(outputs)


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
            self.q_proj = Linear(hidden, q_width, bias=False)
        else:
            self.q_a_proj = Linear(hidden, config.q_lora_rank, bias=bias)
            self.q_a_layernorm = RMSNorm(config.q_lora_rank, MLA_NORM_EPS)
            self.q_b_proj = Linear(config.q_lora_rank, q_width, bias=False)
        self.kv_a_proj_with_mqa = Linear(hidden, self.kv_lora_rank + self.rope_dim, bias=bias)
        self.kv_a_layernorm = RMSNorm(self.kv_lora_rank, MLA_NORM_EPS)
        self.kv_b_proj = Linear(self.kv_lora_rank, self.num_heads * (self.nope_dim + self.v_dim), bias=False)
        self.o_proj = Linear(self.num_heads * self.v_dim, hidden, bias=bias)

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

    def span_attention(self, queries_THQ: Tensor, num_context: int) -> SpanAttention:
        if self._absorbs(len(queries_THQ), num_context):
            q_HTW = self._absorb(queries_THQ).transpose(0, 1).contiguous()

            def attend_to_latents(rows_SW: Tensor, causal: bool) -> PartialAttention:
                latents = rows_SW[None, :, : self.kv_lora_rank]
                return PartialAttention.of_block(q_HTW, rows_SW[None], latents, scale=self.scale, causal=causal)

            return SpanAttention(attend_to_latents, self._values_of)
        q_HTQ = queries_THQ.transpose(0, 1).contiguous()

        def attend_expanded(rows_SW: Tensor, causal: bool) -> PartialAttention:
            k_HSQ, v_HSV = self._expand(rows_SW)
            return attend_block(q_HTQ, k_HSQ, v_HSV, scale=self.scale, causal=causal)

        return SpanAttention(attend_expanded, _join_heads)

    def reads_pages(self, cache: LayerCache) -> bool:
        return self._kernel(cache) is not None

    def _kernel(self, cache: LayerCache) -> Callable[..., Tensor] | None:
        fits = paged_latent_decode.takes(
            latent_width=self.kv_lora_rank, rotated_width=self.rope_dim, dtype=cache.rows.dtype
        )
        if fits and paged_latent_decode.is_available(cache.rows.device):
            return paged_latent_decode.paged_latent_decode
        if paged_latent_decode_cpu.is_available(cache.rows.device, cache.rows.dtype):
            return paged_latent_decode_cpu.paged_latent_decode
        return None

    def decode(self, queries_BHQ: Tensor, rows: DecodeRows, cache: LayerCache) -> Tensor:
        q_BHW = self._absorb(queries_BHQ)
        kernel = self._kernel(cache)
        if kernel is not None:
            attended_BHL = kernel(
                q_BHW,
                cache.rows,
                rows.page_table_BP,
                rows.context_lens_B,
                page_tokens=PAGE_TOKENS,
                latent_width=self.kv_lora_rank,
                scale=self.scale,
            )
        else:
            attended_BHL = self._decode_gathered(q_BHW, rows, cache)
        return self._values_of(attended_BHL)

    def _decode_gathered(self, q_BHW: Tensor, rows: DecodeRows, cache: LayerCache) -> Tensor:
        """[B, H, L] in plain PyTorch: contexts are copied out of the cache, group by group."""
        outputs = []
        for group in rows.groups:
            context_BSW = cache.read(group.pages_BP)
            scores_BHS = float_products(q_BHW[group.start : group.end], context_BSW.transpose(1, 2))
            scores_BHS.mul_(self.scale).masked_fill_(~group.mask_BS[:, None], -torch.inf)
            weights_BHS = scores_BHS.softmax(dim=-1).to(context_BSW.dtype)
            outputs.append(torch.bmm(weights_BHS, context_BSW[..., : self.kv_lora_rank]))
        return torch.cat(outputs)

    def _absorbs(self, num_queries: int, num_context: int) -> bool:
        """Whether attending to latents takes fewer products than expanding the context: for few queries, that see a
        long context, it does, though a latent is wider than a head."""
        expanded_width, latent_width = self.nope_dim + self.rope_dim + self.v_dim, 2 * self.kv_lora_rank + self.rope_dim
        absorb = self.kv_lora_rank * (self.nope_dim + self.v_dim)
        expanded = num_context * (absorb + num_queries * expanded_width)
        return num_queries * (absorb + num_context * latent_width) < expanded

    def _expand(self, rows_SW: Tensor) -> tuple[Tensor, Tensor]:
        """Keys [H, S, Q] and values [H, S, V] of all heads."""
        latent_SL, key_SR = rows_SW.split([self.kv_lora_rank, self.rope_dim], dim=-1)
        kv_HSX = self.kv_b_proj(latent_SL).unflatten(-1, (self.num_heads, -1)).transpose(0, 1)
        k_nope, v_HSV = kv_HSX.split([self.nope_dim, self.v_dim], dim=-1)
        return torch.cat([k_nope, key_SR.expand(self.num_heads, -1, -1)], dim=-1), v_HSV

    def _absorb(self, queries_THQ: Tensor) -> Tensor:
        """[T, H, W]: queries on cache rows, with the keys' expansion moved over to them (arXiv 2405.04434, 2.1.2)."""
        up_k_HNL, _ = self._up_projections()
        q_nope, q_rope = queries_THQ.split([self.nope_dim, self.rope_dim], dim=-1)
        return torch.cat([torch.einsum("thn,hnl->thl", q_nope, up_k_HNL), q_rope], dim=-1)

    def _values_of(self, attended_THL: Tensor) -> Tensor:
        """[T, H * V]: values of what was attended to as latents."""
        _, up_v_HVL = self._up_projections()
        return torch.einsum("thl,hvl->thv", attended_THL, up_v_HVL).flatten(1)

    def _up_projections(self) -> tuple[Tensor, Tensor]:
        up_HXL = self.kv_b_proj.weight.unflatten(0, (self.num_heads, -1))
        up_k_HNL, up_v_HVL = up_HXL.split([self.nope_dim, self.v_dim], dim=1)
        return up_k_HNL, up_v_HVL
