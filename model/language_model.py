"""Embeddings of a packed step -> hidden states and logits: the decoder.

Knows nothing of images, requests or sampling. Shapes: T tokens, D width, V vocabulary.
"""

import torch
from torch import Tensor, nn

from model.attention import RMSNorm, make_attention
from model.config import LanguageConfig
from model.kv_cache import LayerCache, PagedKVCache
from model.linear import Linear
from model.moe import MoE, SwiGLU
from model.parallel import RankGroup
from model.rope import RotaryEmbedding, Rotation
from model.step_layout import StepLayout
from model.token_dispatcher import RankedTokenDispatcher


class DecoderLayer(nn.Module):
    def __init__(self, config: LanguageConfig, index: int) -> None:
        super().__init__()
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.self_attn = make_attention(config)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.mlp = MoE(config) if config.is_moe_layer(index) else SwiGLU(config.hidden_size, config.intermediate_size)

    def forward(self, hidden_TD: Tensor, rotation: Rotation, layout: StepLayout, cache: LayerCache | None) -> Tensor:
        hidden_TD = hidden_TD + self.self_attn(self.input_layernorm(hidden_TD), rotation, layout, cache)
        normed_TD = self.post_attention_layernorm(hidden_TD)
        return hidden_TD + (
            self.mlp(normed_TD, layout.is_token_T) if isinstance(self.mlp, MoE) else self.mlp(normed_TD)
        )


class LanguageModel(nn.Module):
    def __init__(self, config: LanguageConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = nn.Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(DecoderLayer(config, index) for index in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)
        self.rope = RotaryEmbedding(config)

    def forward(self, embeds_TD: Tensor, layout: StepLayout, cache: PagedKVCache | None = None) -> Tensor:
        """Runs one step; returns hidden states [T, D] after the final norm. Rows are written to `cache` if given."""
        rotation = self.rope(layout.positions_T)
        hidden_TD = embeds_TD
        for index, layer in enumerate(self.layers):
            hidden_TD = layer(hidden_TD, rotation, layout, None if cache is None else cache.layer(index))
        return self.norm(hidden_TD)

    def logits(self, hidden_TD: Tensor) -> Tensor:
        """float32 [T, V]; ids past the tokenizer's vocabulary are legal."""
        return self.lm_head(hidden_TD).float()

    @property
    def moe_layers(self) -> list[MoE]:
        return [layer.mlp for layer in self.layers if isinstance(layer.mlp, MoE)]

    def partition_experts(self, group: RankGroup) -> None:
        """Lets tokens go to the experts of other ranks; the parameters must be those of this rank's share."""
        for moe in self.moe_layers:
            moe.dispatcher = RankedTokenDispatcher(moe.gate.weight.shape[0], group)

    def serve_experts(self) -> None:
        """The part of a step that other ranks' tokens need, for a rank that has none itself."""
        nothing_TD = self.embed_tokens.weight.new_empty(0, self.config.hidden_size)
        for moe in self.moe_layers:
            moe(nothing_TD)

    def expert_loads(self) -> list[list[int]]:
        """Per layer with experts, the tokens that each of them was given so far."""
        layers = [moe.dispatcher.load_E for moe in self.moe_layers]
        return [[] if load_E is None else load_E.tolist() for load_E in layers]

    @property
    def dtype(self) -> torch.dtype:
        return self.embed_tokens.weight.dtype
