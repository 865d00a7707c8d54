"""How experts are divided among ranks, and how few ranks a checkpoint fits."""

import pytest
import torch

from model.expert_share import ExpertShare
from model.memory_plan import fewest_ranks, rank_memory
from model.variants import variant_config


@pytest.mark.parametrize(
    ("num_experts", "num_ranks", "sizes"), [(64, 4, [16] * 4), (7, 2, [3, 4]), (6, 4, [1, 2, 1, 2]), (2, 3, [0, 1, 1])]
)
def test_experts_are_divided_as_evenly_as_they_can_be(num_experts, num_ranks, sizes):
    assert ExpertShare(num_ranks=num_ranks).num_experts_by_rank(num_experts) == sizes
    shares = [ExpertShare(rank=rank, num_ranks=num_ranks).experts(num_experts) for rank in range(num_ranks)]
    assert [expert for share in shares for expert in share] == list(range(num_experts))


@pytest.mark.parametrize(
    ("variant", "gb", "num_ranks"), [("small", 80, 1), ("small", 24, 2), ("27b", 40, 2), ("27b", 24, 4)]
)
def test_fewest_ranks_that_hold_the_weights_and_a_cache_are_taken(variant, gb, num_ranks):
    config = variant_config(variant)
    memory = fewest_ranks(config, device_bytes=gb << 30, gpus_per_node=8, dtype=torch.bfloat16)
    assert memory.num_ranks == num_ranks
    assert memory.weight_bytes < (gb << 30)
    assert memory.cache_tokens >= config.language.max_position_embeddings


def test_checkpoint_that_fits_no_node_is_refused_with_the_figures():
    with pytest.raises(ValueError, match=r"49\.\d|\d+\.\d GB of weights.*on each of 1 GPUs, which have 17\.2 GB"):
        fewest_ranks(variant_config("27b"), device_bytes=16 << 30, gpus_per_node=1, dtype=torch.bfloat16)


def test_ranks_share_nothing_but_the_experts():
    config = variant_config("small")
    one, four = (rank_memory(config, num_ranks=k, device_bytes=80 << 30, dtype=torch.bfloat16) for k in (1, 4))
    assert four.dense_bytes == one.dense_bytes
    assert four.expert_bytes == pytest.approx(one.expert_bytes / 4)
