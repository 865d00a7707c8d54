"""The forward pass of training: the model's own modules over a packed batch of turns about images.

The engine's pass serves requests and their caches; this one serves gradients. A test holds them equal. Shapes: T
tokens of the batch, D width, H heads.
"""

from collections.abc import Sequence
from contextlib import AbstractContextManager

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel

from model.attention import MultiHeadLatentAttention
from model.deepseek_vl2 import DeepseekVL2
from model.image_tokens import lay_out_images
from model.language_model import DecoderLayer
from model.nano.packing import Packed
from model.nano.turn_attention import Block, attend, make_masks
from model.rope import Rotation


def plain_attention() -> AbstractContextManager[None]:
    """On a CPU attention as products and a softmax is twice as fast to train in bfloat16 as the fused kernel."""
    torch.backends.cuda.allow_fp16_bf16_reduction_math_sdp(True)
    return sdpa_kernel(SDPBackend.MATH)


def embed(model: DeepseekVL2, packed: Packed, features_NPC: Tensor, grids: Sequence[tuple[int, int]]) -> Tensor:
    """[T, D]: token embeddings with the images' at their places; features are the tower's, of all tiles in order."""
    images_XD = lay_out_images(
        model.projector(features_NPC),
        grids,
        newline_D=model.image_newline,
        separator_D=model.view_separator,
        global_view_first=model.config.global_view_first,
    )
    embeds_TD = model.language.embed_tokens(packed.ids_T.to(model.device))
    return embeds_TD.masked_scatter(packed.image_mask_T.to(model.device)[:, None], images_XD)


def decode(model: DeepseekVL2, embeds_TD: Tensor, packed: Packed) -> Tensor:
    """Hidden states [T, D] after the final norm."""
    language = model.language
    rotation = language.rope(packed.positions_T.to(model.device))
    masks = make_masks(packed.blocks, embeds_TD.dtype, embeds_TD.device)
    hidden_TD = embeds_TD
    for layer in language.layers:
        assert isinstance(layer, DecoderLayer)
        attention = layer.self_attn
        assert isinstance(attention, MultiHeadLatentAttention)
        hidden_TD = hidden_TD + _attend(attention, layer.input_layernorm(hidden_TD), rotation, packed.blocks, masks)
        hidden_TD = hidden_TD + layer.mlp(layer.post_attention_layernorm(hidden_TD))
    return language.norm(hidden_TD)


def _attend(
    attention: MultiHeadLatentAttention,
    x_TD: Tensor,
    rotation: Rotation,
    blocks: Sequence[Block],
    masks: Sequence[Tensor],
) -> Tensor:
    queries_THQ, rows_TW = attention.project(x_TD, rotation)
    latent_TL, key_TR = rows_TW.split([attention.kv_lora_rank, attention.rope_dim], dim=-1)
    kv = attention.kv_b_proj(latent_TL).unflatten(-1, (attention.num_heads, -1))
    k_nope, v_THV = kv.split([attention.nope_dim, attention.v_dim], dim=-1)
    k_THQ = torch.cat([k_nope, key_TR[:, None].expand(-1, attention.num_heads, -1)], dim=-1)
    return attention.o_proj(attend(queries_THQ, k_THQ, v_THV, blocks, masks, attention.scale).flatten(1))
