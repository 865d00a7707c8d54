"""Blocks that a flash attention kernel attends to are those of the plain twin, and merge like them."""

import pytest
import torch
from torch import Tensor

from model import partial_attention
from model.partial_attention import PartialAttention, fused_partial, fused_takes
from tests import golden
from tests.gpu.helpers import CUDA, ON_GPU, load

pytestmark = ON_GPU

WIDTHS = {
    "MLA of the family": (192, 128),
    "MHA of tiny": (128, 128),
    "tower-like": (80, 80),
    "no multiples of 8": (28, 20),
}
TOLERANCE = {"atol": 2e-2, "rtol": 2e-2}
"""Of bfloat16 values of deviation 1 and below."""


def draw(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator(CUDA).manual_seed(seed), device=CUDA).bfloat16()


def block(widths: str, num_queries: int, num_context: int, num_kv_heads: int = 4) -> tuple[Tensor, Tensor, Tensor]:
    query_width, value_width = WIDTHS[widths]
    return (
        draw(4, num_queries, query_width, seed=1),
        draw(num_kv_heads, num_context, query_width, seed=2),
        draw(num_kv_heads, num_context, value_width, seed=3),
    )


def assert_same_partial(q: Tensor, k: Tensor, v: Tensor, *, causal: bool) -> None:
    scale = q.shape[-1] ** -0.5
    fused = fused_partial(q, k, v, scale=scale, causal=causal)
    plain = PartialAttention.of_block(q.float(), k.float(), v.float(), scale=scale, causal=causal)
    torch.testing.assert_close(fused.result(torch.float32), plain.result(torch.float32), **TOLERANCE)
    lse_HT1, plain_lse_HT1 = (one.weight_HT1.log() + one.peak_HT1 for one in (fused, plain))
    torch.testing.assert_close(lse_HT1, plain_lse_HT1, atol=1e-2, rtol=1e-3)


@pytest.mark.parametrize(("num_queries", "num_context"), [(512, 1024), (1, 1000), (300, 17), (7, 1)])
@pytest.mark.parametrize("num_kv_heads", [4, 2, 1])
@pytest.mark.parametrize("widths", WIDTHS)
def test_block_of_the_past_is_that_of_the_plain_twin(
    widths: str, num_kv_heads: int, num_queries: int, num_context: int
):
    assert_same_partial(*block(widths, num_queries, num_context, num_kv_heads), causal=False)


@pytest.mark.parametrize("num_tokens", [1, 2, 129, 512])
@pytest.mark.parametrize("num_kv_heads", [4, 2])
@pytest.mark.parametrize("widths", WIDTHS)
def test_block_of_the_queries_own_tokens_is_causal(widths: str, num_kv_heads: int, num_tokens: int):
    assert_same_partial(*block(widths, num_tokens, num_tokens, num_kv_heads), causal=True)


def test_blocks_merge_to_the_whole():
    q, k, v = block("MLA of the family", 200, 2500)
    partial = None
    for start in range(0, 2500, 1024):
        part = slice(start, start + 1024)
        partial = fused_partial(q, k[:, part], v[:, part], scale=0.07).merged(partial)
    whole = PartialAttention.of_block(q.float(), k.float(), v.float(), scale=0.07)
    torch.testing.assert_close(partial.result(torch.float32), whole.result(torch.float32), **TOLERANCE)


def test_kernel_is_used_in_half_precision_without_gradients():
    q, k, v = block("MLA of the family", 8, 8)
    assert fused_takes(q, k, v)
    assert not fused_takes(q.float(), k.float(), v.float())
    assert not fused_takes(q.requires_grad_(), k, v)
    with torch.inference_mode():
        assert fused_takes(q, k, v)


def test_latents_of_576_are_too_wide_for_it():
    latents = draw(1, 8, 576, seed=1)
    assert not fused_takes(draw(4, 8, 576, seed=2), latents, latents[..., :512])


@pytest.mark.parametrize("name", ["small-like", "tiny-like", "extra70-like"])
def test_logits_by_the_kernel_are_those_of_the_plain_form(name: str, monkeypatch: pytest.MonkeyPatch):
    prompt = golden.prompt(name, "one_wide")
    with torch.inference_mode():
        fused_TV = load(name).logits(prompt)
        monkeypatch.setattr(partial_attention, "fused_takes", lambda *_, **__: False)
        plain_TV = load(name).logits(prompt)
    errors_T = (fused_TV - plain_TV).norm(dim=-1) / plain_TV.norm(dim=-1)
    assert errors_T.median() < 0.03, "of most positions; where a router is undecided another expert may be chosen"
