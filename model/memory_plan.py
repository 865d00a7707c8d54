"""A checkpoint's configuration and headers -> what one rank of it takes in memory, and how many ranks it needs.

Arithmetic: nothing is loaded. Weights are counted from the parameters' shapes; activations are bounded by what a step
may hold at once. Units are bytes unless a name says otherwise.
"""

from dataclasses import dataclass

import torch

from model.checkpoint import parameter_bytes
from model.config import ModelConfig
from model.expert_share import ExpertShare
from model.kv_cache import kv_bytes_per_token

USABLE_FRACTION = 0.9
"""Of a device's memory; the rest is the CUDA context's, the libraries' and what is lost between blocks."""
TOWER_BYTES_PER_TILE = 96 << 20
"""Activations of the tower for one tile in float32 (measured: 1.3 GB for 16); half of it in 16-bit floats."""
MIN_CACHE_SEQUENCES = 4
"""A rank with room for fewer sequences of full context than this would run nearly empty."""


@dataclass(frozen=True, kw_only=True)
class RankMemory:
    """Of one rank, the one with the most experts."""

    num_ranks: int
    dense_bytes: int
    """Weights that every rank holds: tower, projector, attention, shared experts, embeddings."""
    expert_bytes: int
    """Of its routed experts."""
    activation_bytes: int
    kv_bytes_per_token: int
    device_bytes: int

    @property
    def weight_bytes(self) -> int:
        return self.dense_bytes + self.expert_bytes

    @property
    def cache_bytes(self) -> int:
        """What is left for the cache; negative where the weights alone do not fit."""
        return int(USABLE_FRACTION * self.device_bytes) - self.weight_bytes - self.activation_bytes

    @property
    def cache_tokens(self) -> int:
        return max(0, self.cache_bytes // self.kv_bytes_per_token)


def rank_memory(
    config: ModelConfig,
    *,
    num_ranks: int,
    device_bytes: int,
    dtype: torch.dtype,
    prefill_chunk_tokens: int = 1024,
    tiles_per_batch: int = 16,
) -> RankMemory:
    """Args: device_bytes: of one GPU."""
    language, share = config.language, ExpertShare(num_ranks=num_ranks)
    num_experts = language.n_routed_experts or 0
    most = max(share.num_experts_by_rank(num_experts), default=0)
    dense = experts = 0
    for num_bytes, is_of_experts in parameter_bytes(config, dtype):
        if is_of_experts:
            experts += num_bytes // num_experts * most
        else:
            dense += num_bytes
    # A step holds its tokens' copies for their experts twice over, and logits of the sequences that it samples.
    copies = prefill_chunk_tokens * max(1, language.num_experts_per_tok or 1)
    widths = 2 * language.hidden_size + 3 * language.moe_intermediate_size
    activations = copies * widths * dtype.itemsize + 256 * language.vocab_size * 4
    tower = tiles_per_batch * TOWER_BYTES_PER_TILE * dtype.itemsize // 4
    return RankMemory(
        num_ranks=num_ranks,
        dense_bytes=dense,
        expert_bytes=experts,
        activation_bytes=activations + tower,
        kv_bytes_per_token=kv_bytes_per_token(language, dtype.itemsize),
        device_bytes=device_bytes,
    )


def fewest_ranks(config: ModelConfig, *, device_bytes: int, gpus_per_node: int, dtype: torch.dtype) -> RankMemory:
    """The fewest ranks whose experts, beside a cache worth having, fit the GPUs: where a model fits one GPU, one is the
    faster choice. Numbers that do not divide the node's GPUs would leave some idle.

    Raises ValueError where not even all GPUs of a node hold it.
    """
    wanted_tokens = MIN_CACHE_SEQUENCES * config.language.max_position_embeddings
    memory = None
    for num_ranks in (k for k in range(1, gpus_per_node + 1) if gpus_per_node % k == 0):
        memory = rank_memory(config, num_ranks=num_ranks, device_bytes=device_bytes, dtype=dtype)
        if memory.cache_tokens >= wanted_tokens:
            return memory
    assert memory is not None, "a node has at least one GPU"
    if memory.cache_tokens >= config.language.max_position_embeddings:
        return memory
    raise ValueError(
        f"the checkpoint needs {memory.weight_bytes / 1e9:.1f} GB of weights and "
        f"{memory.activation_bytes / 1e9:.1f} GB of activations on each of {memory.num_ranks} GPUs, which have "
        f"{device_bytes / 1e9:.1f} GB: it takes larger GPUs, or more of them in a node"
    )
