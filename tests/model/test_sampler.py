"""Tokens are chosen by each sequence's own parameters and its own random numbers."""

from concurrent.futures import Future

import numpy as np
import pytest
import torch

from model import sampler
from model.prompt import Prompt
from model.sampler import keep_top_p, penalize_repetition, sample
from model.sequence import SamplingParams, Sequence

LOGITS = [2.0, 1.0, 0.0, -1.0]


def sequence(*, prompt_ids: tuple[int, ...] = (3,), output_ids: tuple[int, ...] = (), **params) -> Sequence:
    prompt = Prompt(
        input_ids=np.array(prompt_ids, dtype=np.int64),
        image_mask=np.zeros(len(prompt_ids), dtype=bool),
    )
    return Sequence(
        prompt=prompt,
        params=SamplingParams(**params),
        future=Future(),
        max_total_tokens=100,
        output_ids=list(output_ids),
    )


def draw(num_tokens: int, logits: list[float] = LOGITS, **params) -> list[int]:
    """So many tokens of one sequence."""
    drawn = sequence(**params)
    return [sample(torch.tensor([logits]), [drawn])[0][0] for _ in range(num_tokens)]


def test_temperature_zero_is_the_likeliest_token_and_its_log_probability():
    tokens, logprobs = sample(torch.tensor([LOGITS, LOGITS[::-1]]), [sequence(), sequence()])
    assert tokens == [0, 3]
    assert logprobs == pytest.approx([float(torch.tensor(LOGITS).log_softmax(0)[0])] * 2)


@pytest.mark.parametrize(("temperature", "num_reads"), [(0.0, 1), (0.7, 2)], ids=["greedy", "drawn"])
def test_tokens_of_a_batch_are_read_from_the_device_together(temperature: float, num_reads: int, monkeypatch):
    shapes = []
    monkeypatch.setattr(sampler, "read", lambda values: shapes.append(values.shape) or values.cpu())
    batch = [sequence(temperature=temperature, repetition_penalty=1.1) for _ in range(5)]
    tokens, logprobs = sample(torch.tensor([LOGITS] * 5), batch)
    assert (len(tokens), len(logprobs), len(shapes)) == (5, 5, num_reads)
    assert shapes[-1] == (2, 5)


def test_drawn_and_greedy_sequences_share_a_batch():
    batch = [sequence(), sequence(temperature=1.0, seed=5), sequence(), sequence(temperature=1.0, seed=6)]
    rows = [sample(torch.tensor([LOGITS, LOGITS, LOGITS[::-1], LOGITS]), batch)[0] for _ in range(30)]
    assert {(row[0], row[2]) for row in rows} == {(0, 3)}
    assert [row[1] for row in rows] == draw(30, temperature=1.0, seed=5)
    assert [row[3] for row in rows] == draw(30, temperature=1.0, seed=6)


def test_same_seed_draws_the_same_tokens_and_another_seed_others():
    assert draw(30, temperature=1.0, seed=5) == draw(30, temperature=1.0, seed=5)
    assert draw(30, temperature=1.0, seed=5) != draw(30, temperature=1.0, seed=6)


def test_largest_seed_is_accepted():
    assert len(draw(1, temperature=1.0, seed=2**64 - 1)) == 1


def test_tokens_of_a_sequence_do_not_depend_on_the_others_in_its_batch():
    together = [sequence(temperature=1.0, seed=seed) for seed in (5, 6, 7)]
    rows = [sample(torch.tensor([LOGITS] * 3), together)[0] for _ in range(30)]
    assert [row[0] for row in rows] == draw(30, temperature=1.0, seed=5)
    assert [row[2] for row in rows] == draw(30, temperature=1.0, seed=7)


def test_draws_follow_the_probabilities():
    counts = np.bincount(draw(4000, temperature=0.5, seed=1), minlength=4) / 4000
    expected = (torch.tensor(LOGITS) / 0.5).softmax(0)
    np.testing.assert_allclose(counts, expected, atol=0.03)


def test_very_low_temperature_is_greedy():
    assert set(draw(20, logits=[80.0, 90.0, 89.0], temperature=1e-310)) == {1}


def test_log_probability_is_the_models_whatever_the_temperature():
    (token,), (logprob,) = sample(torch.tensor([LOGITS]), [sequence(temperature=3.0, top_p=0.5, repetition_penalty=2)])
    assert logprob == pytest.approx(float(torch.tensor(LOGITS).log_softmax(0)[token]))


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [
        (0.01, [1]),
        (0.5, [1]),
        (0.51, [1, 3]),
        (0.79, [1, 3]),
        (0.81, [1, 3, 0]),
        (1.0, [1, 3, 0, 2]),
    ],
)
def test_top_p_keeps_the_smallest_set_of_likeliest_tokens_that_reaches_it(top_p: float, kept: list[int]):
    probabilities = torch.tensor([0.15, 0.5, 0.05, 0.3], dtype=torch.float64)
    expected = torch.zeros(4, dtype=torch.float64)
    expected[kept] = probabilities[kept]
    assert torch.equal(keep_top_p(probabilities, top_p), expected)


def test_of_equally_likely_tokens_the_first_are_kept():
    assert keep_top_p(torch.full((4,), 0.25), 0.4).nonzero().flatten().tolist() == [0, 1]


def test_tokens_outside_top_p_are_never_drawn():
    assert set(draw(500, temperature=1.0, top_p=0.6)) == {0}
    assert set(draw(500, temperature=1.0, top_p=0.7)) == {0, 1}


def test_repetition_penalty_divides_positive_and_multiplies_negative_logits_of_prompt_and_output():
    seen = sequence(prompt_ids=(0, 0, 3), output_ids=(2,), repetition_penalty=2.0)
    assert penalize_repetition(torch.tensor(LOGITS), seen).tolist() == [1.0, 1.0, 0.0, -2.0]


def test_repetition_penalty_changes_the_greedy_choice():
    logits = torch.tensor([[2.0, 1.9]])
    assert sample(logits, [sequence(prompt_ids=(0,))])[0] == [0]
    assert sample(logits, [sequence(prompt_ids=(0,), repetition_penalty=1.1)])[0] == [1]


def test_repetition_penalty_ignores_ids_past_the_vocabulary():
    """`<image>` may be one where the tokenizer was extended and the model was not."""
    assert penalize_repetition(torch.tensor(LOGITS), sequence(prompt_ids=(1, 4), repetition_penalty=2.0))[1] == 0.5


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_new_tokens", 0),
        ("max_new_tokens", 2.5),
        ("temperature", -0.1),
        ("temperature", float("nan")),
        ("temperature", float("inf")),
        ("top_p", 0),
        ("top_p", 1.1),
        ("repetition_penalty", 0),
        ("repetition_penalty", float("inf")),
        ("seed", -1),
        ("seed", 2**64),
        ("seed", 1.0),
    ],
    ids=str,
)
def test_refused_parameter_is_named_with_its_value(name: str, value: float):
    with pytest.raises(ValueError, match=f"{name} is {value}"):
        SamplingParams(**{name: value})
