"""Rotations equal multiplication of complex numbers, written out plainly here."""

import cmath

import pytest
import torch
from torch import Tensor

from model.config import LanguageConfig, LinearRopeConfig, YarnConfig
from model.rope import RotaryEmbedding, mla_softmax_scale

WIDTH = 8
POSITIONS = torch.tensor([0, 1, 7, 500])


def rope(scaling: YarnConfig | LinearRopeConfig | None = None, *, width: int = WIDTH, theta: float = 10000.0):
    return RotaryEmbedding(LanguageConfig(qk_rope_head_dim=width, rope_theta=theta, rope_scaling=scaling))


def angles(embedding: RotaryEmbedding, positions: Tensor = POSITIONS) -> Tensor:
    """[T, R/2], modulo a turn."""
    rotation = embedding(positions)
    return torch.atan2(rotation.sin, rotation.cos)


def twin(x: Tensor, positions: Tensor, pairs: list[tuple[int, int]]) -> Tensor:
    """Each pair of [T, H, R] as a complex number, turned by position * theta^(-2i/R); pairs in order, [even | odd]."""
    out = torch.empty_like(x)
    for t, position in enumerate(positions.tolist()):
        for h in range(x.shape[1]):
            for i, (first, second) in enumerate(pairs):
                angle = position * 10000.0 ** (-2 * i / WIDTH)
                turned = complex(x[t, h, first], x[t, h, second]) * cmath.exp(1j * angle)
                out[t, h, i], out[t, h, i + WIDTH // 2] = turned.real, turned.imag
    return out


@pytest.fixture
def x_THR() -> Tensor:  # noqa: N802 - a tensor and its shape
    return torch.randn(len(POSITIONS), 3, WIDTH, generator=torch.Generator().manual_seed(0))


def test_halves_are_rotated_together(x_THR: Tensor):
    pairs = [(i, i + WIDTH // 2) for i in range(WIDTH // 2)]
    torch.testing.assert_close(rope()(POSITIONS).apply(x_THR), twin(x_THR, POSITIONS, pairs), atol=1e-4, rtol=0)


def test_neighbours_are_rotated_together_and_come_out_de_interleaved(x_THR: Tensor):
    pairs = [(2 * i, 2 * i + 1) for i in range(WIDTH // 2)]
    actual = rope()(POSITIONS).apply_interleaved(x_THR)
    torch.testing.assert_close(actual, twin(x_THR, POSITIONS, pairs), atol=1e-4, rtol=0)


def test_position_zero_leaves_everything_as_it_is(x_THR: Tensor):
    assert torch.equal(rope()(torch.zeros(len(POSITIONS), dtype=torch.int64)).apply(x_THR), x_THR)


def test_scores_depend_on_the_distance_only():
    q, k = torch.randn(2, 1, 1, WIDTH, generator=torch.Generator().manual_seed(1))

    def score(q_position: int, k_position: int) -> float:
        turned = [rope()(torch.tensor([p])).apply(x) for p, x in ((q_position, q), (k_position, k))]
        return float((turned[0] * turned[1]).sum())

    assert score(9, 4) == pytest.approx(score(105, 100), abs=1e-4)
    assert score(9, 4) != pytest.approx(score(9, 5), abs=1e-2)


def test_dtype_is_kept_and_computed_in_float32(x_THR: Tensor):
    rotation = rope()(POSITIONS)
    assert rotation.cos.dtype == torch.float32
    assert torch.equal(rotation.apply(x_THR.bfloat16()), rotation.apply(x_THR.bfloat16().float()).bfloat16())


def test_multi_head_attention_rotates_its_whole_head():
    embedding = RotaryEmbedding(LanguageConfig(use_mla=False, hidden_size=96, num_attention_heads=4))
    assert embedding(POSITIONS).cos.shape == (4, 12)


def test_linear_scaling_divides_positions():
    scaled = angles(rope(LinearRopeConfig(factor=4.0)), torch.tensor([0, 4, 28, 400]))
    torch.testing.assert_close(scaled, angles(rope(), torch.tensor([0, 1, 7, 100])))


def test_yarn_leaves_fast_dimensions_alone_and_slows_the_slowest_down_by_the_factor():
    yarn = YarnConfig(factor=40.0, original_max_position_embeddings=4096)
    position = torch.tensor([40])
    plain, scaled = angles(rope(width=64), position)[0], angles(rope(yarn, width=64), position)[0]
    torch.testing.assert_close(scaled[0], plain[0])
    torch.testing.assert_close(scaled[-1] * 40, plain[-1])
    ratio = scaled[12:] / plain[12:]  # those still within their first turn at this position
    assert (ratio[1:] <= ratio[:-1] + 1e-6).all()


@pytest.mark.parametrize(
    ("mscale", "mscale_all_dim", "magnitude", "scale_factor"),
    [(1.0, 0.0, 1.3689, 1.0), (1.0, 1.0, 1.0, 1.3689**2), (0.707, 1.0, 1.2608 / 1.3689, 1.3689**2)],
)
def test_yarn_magnitude_lies_in_the_rotation_or_in_the_softmax_scale(
    mscale: float, mscale_all_dim: float, magnitude: float, scale_factor: float
):
    """0.1 * mscale * ln(40) + 1 = 1.3689 for mscale 1."""
    yarn = YarnConfig(factor=40.0, mscale=mscale, mscale_all_dim=mscale_all_dim)
    config = LanguageConfig(qk_rope_head_dim=8, qk_nope_head_dim=8, rope_scaling=yarn)
    rotation = RotaryEmbedding(config)(POSITIONS)
    assert float((rotation.cos**2 + rotation.sin**2).sqrt().mean()) == pytest.approx(magnitude, abs=1e-3)
    assert mla_softmax_scale(config) == pytest.approx(0.25 * scale_factor, rel=1e-3)
