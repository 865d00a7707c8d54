"""Pages are handed out and taken back; a step knows which rows each sequence writes and reads."""

import pytest
import torch

from model.config import LanguageConfig
from model.kv_cache import (
    PAGE_TOKENS,
    PagedKVCache,
    SequenceStep,
    StepLayout,
    kv_row_width,
    pack_step,
    pages_for,
    slots_of,
)

CPU = torch.device("cpu")


def cache(num_pages: int = 4, num_layers: int = 2) -> PagedKVCache:
    config = LanguageConfig(kv_lora_rank=3, qk_rope_head_dim=2, num_hidden_layers=num_layers)
    return PagedKVCache(config, num_pages=num_pages, dtype=torch.float32, device=CPU)


def test_row_holds_the_latent_and_its_rotated_key():
    assert kv_row_width(LanguageConfig(kv_lora_rank=512, qk_rope_head_dim=64)) == 576


def test_row_of_multi_head_attention_holds_keys_and_values_of_every_kv_head():
    config = LanguageConfig(use_mla=False, hidden_size=64, num_attention_heads=4, num_key_value_heads=2)
    assert kv_row_width(config) == 2 * 2 * 16


@pytest.mark.parametrize(("num_tokens", "num_pages"), [(0, 0), (1, 1), (16, 1), (17, 2)])
def test_tokens_need_whole_pages(num_tokens: int, num_pages: int):
    assert pages_for(num_tokens) == num_pages


def test_page_belongs_to_one_sequence_at_a_time():
    pages = cache()
    first, second = pages.allocate(1), pages.allocate(3)
    assert sorted(first + second) == [0, 1, 2, 3]
    assert pages.num_free_pages == 0
    with pytest.raises(AssertionError, match="1 pages asked, 0 free"):
        pages.allocate(1)
    pages.release(second)
    assert sorted(pages.allocate(3)) == sorted(second)


def test_slots_follow_the_order_of_the_pages():
    assert slots_of([5, 2], 0, 3).tolist() == [80, 81, 82]
    assert slots_of([5, 2], 14, 18).tolist() == [94, 95, 32, 33]


def test_layers_keep_their_rows_apart():
    rows = cache()
    slots = slots_of([3, 1], 0, 20)
    written = torch.arange(20 * 5, dtype=torch.float32).view(20, 5)
    rows.layer(0).write(slots, written)
    assert torch.equal(rows.layer(0).read(slots), written)
    assert not rows.layer(1).read(slots).any()


def test_step_packs_prompts_first_and_then_one_token_of_each_decoding_sequence():
    layout = pack_step(
        [SequenceStep(pages=[0], start=0, end=3), SequenceStep(pages=[1, 2], start=15, end=17)],
        [SequenceStep(pages=[3], start=4, end=5), SequenceStep(pages=[4], start=1, end=2)],
        CPU,
    )
    assert layout.positions_T.tolist() == [0, 1, 2, 15, 16, 4, 1]
    assert layout.new_slots_T.tolist() == [0, 1, 2, 31, 32, 52, 65]
    assert [(span.start, span.end) for span in layout.prefill] == [(0, 3), (3, 5)]
    assert layout.prefill[1].context_slots_S.tolist() == [*range(16, 32), 32]
    assert layout.num_prefill_tokens == 5
    assert layout.decode_mask_BS.tolist() == [[True] * 5, [True] * 2 + [False] * 3]
    assert layout.decode_slots_BS[layout.decode_mask_BS].tolist() == [48, 49, 50, 51, 52, 64, 65]


def test_step_of_prompts_only_decodes_nothing():
    layout = pack_step([SequenceStep(pages=[0], start=0, end=1)], [], CPU)
    assert layout.decode_slots_BS is None
    assert layout.decode_mask_BS is None


def test_step_of_decoding_sequences_only_has_no_spans():
    layout = pack_step([], [SequenceStep(pages=[2], start=PAGE_TOKENS - 1, end=PAGE_TOKENS)], CPU)
    assert layout.prefill == ()
    assert layout.num_prefill_tokens == 0
    assert layout.new_slots_T.tolist() == [3 * PAGE_TOKENS - 1]


def test_whole_sequence_needs_no_cache():
    layout = StepLayout.whole_sequence(3, CPU)
    assert layout.positions_T.tolist() == [0, 1, 2]
    assert layout.new_slots_T is None
