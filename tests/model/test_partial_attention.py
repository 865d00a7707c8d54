"""A context read in blocks gives what the whole gives, in whatever form, and takes no more memory when it is longer."""

import pytest
import torch
import torch.nn.functional as F
from torch.profiler import ProfilerActivity, profile

from model import attention, partial_attention
from model.attention import MultiHeadLatentAttention, make_attention
from model.config import LanguageConfig
from model.kv_cache import PagedKVCache, pages_for
from model.language_model import LanguageModel
from model.partial_attention import PartialAttention, fused_partial, fused_takes
from model.rope import RotaryEmbedding
from model.step_layout import SequenceStep, StepLayout, pack_step

CPU = torch.device("cpu")
SMALL_IN_SMALL = {
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 96,
    "vocab_size": 32,
    "n_routed_experts": None,
    "kv_lora_rank": 32,
    "qk_nope_head_dim": 16,
    "qk_rope_head_dim": 8,
    "v_head_dim": 12,
    "first_k_dense_replace": 2,
}


@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
def test_blocks_merge_to_the_whole(num_kv_heads: int):
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(4, 5, 8, generator=generator)
    k, v = (torch.randn(num_kv_heads, 37, width, generator=generator) for width in (8, 6))
    partial = None
    for start in (0, 16, 32):
        block = PartialAttention.of_block(q, k[:, start : start + 16], v[:, start : start + 16], scale=0.5)
        partial = block.merged(partial)
    whole = F.scaled_dot_product_attention(q[None], k[None], v[None], scale=0.5, enable_gqa=True)[0]
    torch.testing.assert_close(partial.result(torch.float32), whole)


def test_query_sees_itself_and_what_lies_before_it():
    q, k = torch.randn(2, 6, 8), torch.randn(2, 6, 8)
    v = torch.arange(6.0).expand(2, 1, 6).transpose(1, 2)
    result = PartialAttention.of_block(q, torch.zeros_like(k), v, scale=1.0, causal=True).result(torch.float32)
    assert result[0, :, 0].tolist() == [0.0, 0.5, 1.0, 1.5, 2.0, 2.5]


def test_scores_far_apart_do_not_overflow():
    q = torch.full((1, 1, 1), 1000.0)
    low, high = (
        PartialAttention.of_block(q, torch.full((1, 1, 1), score), torch.full((1, 1, 1), value), scale=1.0)
        for score, value in ((-5.0, 1.0), (5.0, 2.0))
    )
    for merged in (low.merged(high), high.merged(low)):
        assert merged.result(torch.float32).item() == 2.0


WIDTHS = {
    "MLA of the family": (192, 128),
    "MHA of tiny": (128, 128),
    "tower-like": (80, 80),
    "no multiples of 8": (28, 20),
}


@pytest.mark.parametrize(("num_queries", "num_context"), [(5, 37), (1, 37), (37, 5)])
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("widths", WIDTHS)
def test_fused_block_is_that_of_its_plain_twin(widths: str, num_kv_heads: int, num_queries: int, num_context: int):
    query_width, value_width = WIDTHS[widths]
    q = torch.randn(4, num_queries, query_width)
    k, v = (torch.randn(num_kv_heads, num_context, width) for width in (query_width, value_width))
    assert_same_partial(q, k, v, causal=False)


@pytest.mark.parametrize("num_kv_heads", [4, 2])
@pytest.mark.parametrize("num_tokens", [1, 5, 70])
@pytest.mark.parametrize("widths", WIDTHS)
def test_fused_block_of_the_queries_own_tokens_is_causal(widths: str, num_tokens: int, num_kv_heads: int):
    query_width, value_width = WIDTHS[widths]
    q = torch.randn(4, num_tokens, query_width)
    k, v = (torch.randn(num_kv_heads, num_tokens, width) for width in (query_width, value_width))
    assert_same_partial(q, k, v, causal=True)


def assert_same_partial(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *, causal: bool) -> None:
    """The same results, and the same weight of the whole block, whatever peak it is counted from."""
    fused = fused_partial(q, k, v, scale=0.11, causal=causal)
    plain = PartialAttention.of_block(q, k, v, scale=0.11, causal=causal)
    torch.testing.assert_close(fused.result(torch.float32), plain.result(torch.float32))
    lse_HT1, plain_lse_HT1 = (one.weight_HT1.log() + one.peak_HT1 for one in (fused, plain))
    torch.testing.assert_close(lse_HT1, plain_lse_HT1)


def test_fused_and_plain_blocks_merge_to_the_whole():
    q, k, v = torch.randn(4, 5, 24), torch.randn(2, 48, 24), torch.randn(2, 48, 16)
    partial = None
    for start, attend in ((0, fused_partial), (16, PartialAttention.of_block), (32, fused_partial)):
        block = attend(q, k[:, start : start + 16], v[:, start : start + 16], scale=0.5)
        partial = block.merged(partial)
    whole = F.scaled_dot_product_attention(q[None], k[None], v[None], scale=0.5, enable_gqa=True)[0]
    torch.testing.assert_close(partial.result(torch.float32), whole)


def test_bfloat16_block_keeps_a_float32_log_sum_exp():
    """It decides how blocks are weighed against each other: rounded to 8 bits it would be wrong by up to 2 %."""
    q, k, v = (torch.randn(4, 9, 24).bfloat16() for _ in range(3))
    fused = fused_partial(q, k, v, scale=0.5)
    plain = PartialAttention.of_block(q.float(), k.float(), v.float(), scale=0.5)
    assert (fused.sum_HTV.dtype, fused.peak_HT1.dtype) == (torch.float32, torch.float32)
    torch.testing.assert_close(fused.peak_HT1, plain.weight_HT1.log() + plain.peak_HT1, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(("dtype", "causal"), [(torch.bfloat16, True), (torch.bfloat16, False), (torch.float32, False)])
def test_cpu_attends_in_plain_pytorch_where_its_kernel_is_slower(dtype: torch.dtype, causal: bool):
    q, k, v = (torch.randn(4, 9, 24).to(dtype) for _ in range(3))
    assert not fused_takes(q, k, v, causal=causal)


def test_cpu_leaves_out_the_hidden_half_of_a_causal_block_unless_a_gradient_is_wanted():
    q, k, v = (torch.randn(4, 9, 24) for _ in range(3))
    assert fused_takes(q, k, v, causal=True)
    assert not fused_takes(q.requires_grad_(), k, v, causal=True)


def layer(use_mla: bool, seed: int = 0) -> attention.Attention:
    torch.manual_seed(seed)
    return make_attention(LanguageConfig(**SMALL_IN_SMALL, use_mla=use_mla)).requires_grad_(False)


def outputs_in_chunks(model: attention.Attention, config: LanguageConfig, hidden_TD: torch.Tensor, ends: list[int]):
    """Outputs of one sequence whose tokens come in chunks that end at `ends`; chunks of one token are decoded."""
    num_tokens = len(hidden_TD)
    cache = PagedKVCache(config, num_pages=pages_for(num_tokens), dtype=torch.float32, device=CPU)
    pages = list(reversed(cache.allocate(pages_for(num_tokens))))
    outputs = []
    for start, end in zip([0, *ends], ends, strict=False):
        step = SequenceStep(pages=pages, start=start, end=end)
        layout = pack_step([step], [], CPU) if end - start > 1 else pack_step([], [step], CPU)
        rotation = RotaryEmbedding(config)(layout.positions_T)
        outputs.append(model(hidden_TD[start:end], rotation, layout, cache.layer(0)))
    return torch.cat(outputs)


@pytest.mark.parametrize("ends", [[40], [7, 8, 33, 40], [16, 32, 38, 39, 40], [*range(1, 41)]], ids=len)
@pytest.mark.parametrize("form", ["as it chooses", "absorbed", "expanded", "expanded and fused"])
@pytest.mark.parametrize("use_mla", [True, False], ids=["MLA", "MHA"])
def test_outputs_do_not_depend_on_chunks_blocks_or_form(
    use_mla: bool, form: str, ends: list[int], monkeypatch: pytest.MonkeyPatch
):
    config = LanguageConfig(**SMALL_IN_SMALL, use_mla=use_mla)
    model = layer(use_mla)
    hidden_TD = torch.randn(40, 64, generator=torch.Generator().manual_seed(1))
    layout = StepLayout.whole_sequence(40, CPU)
    whole = model(hidden_TD, RotaryEmbedding(config)(layout.positions_T), layout, None)
    monkeypatch.setattr(attention, "CONTEXT_BLOCK_TOKENS", 16)
    if form != "as it chooses":
        monkeypatch.setattr(MultiHeadLatentAttention, "_absorbs", lambda *_: form == "absorbed")
    if form == "expanded and fused":
        monkeypatch.setattr(partial_attention, "fused_takes", lambda *_, **__: True)
    torch.testing.assert_close(outputs_in_chunks(model, config, hidden_TD, ends), whole, atol=1e-5, rtol=1e-5)


def test_few_queries_on_a_long_context_are_absorbed_and_many_are_not():
    """Small's widths: with a question of 20 tokens about an image of 2,017, expanding would cost six times as much."""
    config = LanguageConfig(num_attention_heads=16, kv_lora_rank=512, hidden_size=64)
    with torch.device("meta"):
        model = MultiHeadLatentAttention(config)
    assert model._absorbs(20, 2037)
    assert not model._absorbs(512, 2017)
    assert not model._absorbs(451, 451)


def peak_bytes_of_last_chunk(num_tokens: int, chunk: int) -> int:
    """Most memory that the forward pass over the last chunk of a prompt holds at once, beside weights and cache."""
    config = LanguageConfig(**SMALL_IN_SMALL, use_mla=True)
    torch.manual_seed(0)
    model = LanguageModel(config).requires_grad_(False)
    cache = PagedKVCache(config, num_pages=pages_for(num_tokens), dtype=torch.float32, device=CPU)
    step = SequenceStep(pages=cache.allocate(pages_for(num_tokens)), start=num_tokens - chunk, end=num_tokens)
    layout = pack_step([step], [], CPU)
    embeds_TD = torch.randn(chunk, config.hidden_size)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded, torch.inference_mode():
        model(embeds_TD, layout, cache)
    events = [one for one in recorded.profiler.kineto_results.events() if one.name() == "[memory]"]
    held = peak = 0
    for event in sorted(events, key=lambda one: one.start_ns()):
        held += event.nbytes()
        peak = max(peak, held)
    return peak


def test_memory_of_a_chunk_does_not_grow_with_the_prompt(monkeypatch: pytest.MonkeyPatch):
    """The prompt of a nine-tile image and one twice as long, in chunks of 128 tokens."""
    monkeypatch.setattr(attention, "CONTEXT_BLOCK_TOKENS", 512)
    short, long = (peak_bytes_of_last_chunk(num_tokens, 128) for num_tokens in (2017, 4034))
    assert short > 512 * 4 * 16 * 4, "at least the keys of one block"
    assert long < short * 1.02
