"""Pages are handed out, shared and taken back, and hold what the released variants need and no more."""

import pytest
import torch

from model.config import LanguageConfig
from model.kv_cache import PAGE_TOKENS, PagedKVCache, kv_row_width, pages_for

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


def test_shared_page_is_free_again_when_its_last_holder_gives_it_up():
    pages = cache()
    first = pages.allocate(2)
    second = [*pages.share(first[:1]), *pages.allocate(1)]
    pages.release(first)
    assert pages.num_free_pages == 2
    pages.release(second)
    assert pages.num_free_pages == 4
    with pytest.raises(AssertionError, match="is free"):
        pages.release(second)


def test_pages_are_read_in_the_order_that_they_are_asked_for():
    rows = cache().layer(0)
    rows.write(torch.arange(4 * PAGE_TOKENS), torch.arange(4.0 * PAGE_TOKENS)[:, None].expand(-1, 5))
    assert rows.read(torch.tensor([2, 0]))[:, 0].tolist() == [*range(32, 48), *range(16)]
    assert rows.read(torch.tensor([[3], [1]])).shape == (2, PAGE_TOKENS, 5)


def test_layers_keep_their_rows_apart():
    pages = cache()
    pages.layer(0).write(torch.tensor([3, 17]), torch.ones(2, 5))
    assert pages.layer(0).read(torch.tensor([0, 1])).sum() == 10
    assert not pages.layer(1).read(torch.tensor([0, 1])).any()


def test_copied_page_holds_the_rows_of_every_layer():
    pages = cache()
    for index in range(2):
        pages.layer(index).write(torch.arange(16, 32), torch.full((16, 5), 1.0 + index))
    pages.copy_page(1, 3)
    assert pages.layer(0).read(torch.tensor([3])).unique().tolist() == [1.0]
    assert pages.layer(1).read(torch.tensor([3])).unique().tolist() == [2.0]
