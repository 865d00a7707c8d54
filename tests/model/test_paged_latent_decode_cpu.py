"""Our C for decoding on CPUs agrees with its plain twin, reads nothing outside a context, and no neighbour changes a
bit."""

import pytest
import torch
from torch import Tensor

from model.engine import Engine, EngineConfig
from model.kernels import paged_latent_decode_cpu
from model.kernels.paged_latent_decode_cpu import is_available, paged_latent_decode
from model.kernels.paged_latent_decode_reference import paged_latent_decode_reference
from tests.model.decode_cases import assert_agree, case
from tests.model.helpers import ask, image

pytestmark = pytest.mark.skipif(
    not is_available(torch.device("cpu"), torch.float32),
    reason="paged_latent_decode.c was not built: no C compiler when the package was installed",
)


@pytest.mark.parametrize("context_len", [1, 7, 8, 15, 16, 17, 63, 64, 65, 128, 1000])
def test_kernel_agrees_with_its_twin_at_every_fill_of_a_page_and_of_a_piece(context_len: int):
    example = case([context_len])
    assert_agree(example.run(paged_latent_decode), example.run(paged_latent_decode_reference))


@pytest.mark.parametrize(
    ("heads", "latent", "rotated"), [(1, 8, 8), (3, 20, 6), (6, 64, 16), (16, 512, 64), (70, 5, 3), (128, 64, 16)]
)
def test_kernel_takes_every_number_of_heads_and_width(heads: int, latent: int, rotated: int):
    example = case([40, 3, 0, 129], heads=heads, latent=latent, rotated=rotated)
    assert_agree(example.run(paged_latent_decode), example.run(paged_latent_decode_reference))


def test_row_with_the_largest_score_outweighs_the_others_without_overflow():
    example = case([300])
    example.queries_BHW.mul_(1e3)
    assert_agree(example.run(paged_latent_decode), example.run(paged_latent_decode_reference))


def test_rows_that_score_alike_are_averaged():
    example = case([200])
    example.queries_BHW.zero_()
    assert_agree(example.run(paged_latent_decode), example.run(paged_latent_decode_reference))


@pytest.mark.parametrize("num_threads", [1, 2, 3])
def test_sequence_has_the_same_bits_alone_and_beside_others_and_with_any_number_of_threads(num_threads: int):
    together = case([450, 20, 1, 600, 17], heads=10)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = [together.only(sequence).run(paged_latent_decode)[0] for sequence in range(5)]
        torch.set_num_threads(num_threads)
        results_BHL = together.run(paged_latent_decode)
        for sequence in range(5):
            assert torch.equal(together.only(sequence).run(paged_latent_decode)[0], alone[sequence])
            assert torch.equal(results_BHL[sequence], alone[sequence])
    finally:
        torch.set_num_threads(before)


def test_queries_may_lie_apart():
    example = case([40, 70])
    wide = torch.full((2, 12, 200), torch.nan)
    wide[:, ::2, :80] = example.queries_BHW
    spread = case([40, 70])
    object.__setattr__(spread, "queries_BHW", wide[:, ::2, :80])
    assert_agree(spread.run(paged_latent_decode), example.run(paged_latent_decode_reference))


def answers() -> list[list[int]]:
    with Engine.load("nano", config=EngineConfig(max_num_sequences=4)) as engine:
        requests = [ask("<image>\nWhat?", images=(image("tiny"),), max_new_tokens=6), ask("Why?", max_new_tokens=9)]
        return [completion.token_ids for completion in engine.generate(requests)]


def test_engine_answers_with_it_as_without_it(monkeypatch: pytest.MonkeyPatch):
    calls = []

    def counting(*tensors: Tensor, **settings: object) -> Tensor:
        calls.append(tensors)
        return paged_latent_decode(*tensors, **settings)

    monkeypatch.setattr(paged_latent_decode_cpu, "paged_latent_decode", counting)
    fast = answers()
    assert calls
    monkeypatch.setattr(paged_latent_decode_cpu, "_library", lambda: None)
    assert answers() == fast
