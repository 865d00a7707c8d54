"""No speed is compared before both sides are shown to compute the same."""

import pytest
import torch

from model.step_layout import StepLayout
from tests.benchmarks import transformers_side
from tests.benchmarks.agreement import DisagreementError, first_difference, require_agreement
from tests.benchmarks.random_models import random_model, text_model_config

TOLERANCE = 1e-3


def logits_with_gap(gap: float):
    """Of three tokens, for any ids: token 1 is `gap` ahead of token 2, token 0 far behind."""
    return lambda ids: torch.tensor([0.0, 5.0 + gap, 5.0]).repeat(len(ids), 1)


def test_equal_outputs_need_no_logits():
    report = require_agreement([[7]], [[1, 2]], [[1, 2]], logits_of=pytest.fail, tolerance=TOLERANCE)
    assert report == {"prompts": 1, "equal": 1, "largest_gap_at_a_difference": 0.0}


def test_tokens_that_part_at_a_near_tie_are_float_noise():
    report = require_agreement(
        [[7], [8]], [[0, 1], [0, 0]], [[0, 2], [0, 0]], logits_of=logits_with_gap(1e-4), tolerance=TOLERANCE
    )
    assert report["equal"] == 1
    assert report["largest_gap_at_a_difference"] == pytest.approx(1e-4, rel=0.01)


def test_tokens_that_part_where_the_choice_was_clear_stop_the_comparison():
    with pytest.raises(DisagreementError, match="output token 1 is 1 here and 2 there"):
        require_agreement([[7]], [[0, 1]], [[0, 2]], logits_of=logits_with_gap(0.5), tolerance=TOLERANCE)


def test_output_that_ends_early_is_a_difference_no_noise_explains():
    assert first_difference([1, 2], [1, 2, 3]) == 2
    with pytest.raises(DisagreementError, match="2 and 3 tokens"):
        require_agreement([[7]], [[1, 2]], [[1, 2, 3]], logits_of=logits_with_gap(0.0), tolerance=TOLERANCE)


def test_transformers_computes_our_logits_on_the_very_same_weights():
    model = random_model(text_model_config(num_layers=2, vocab_size=64), seed=0)
    theirs = transformers_side.transformers_model(model)
    assert theirs.model.layers[1].mlp.experts.down_proj.data_ptr() == (
        model.language.layers[1].mlp.experts.down_proj.data_ptr()
    )
    ids = torch.arange(40) % 64
    layout = StepLayout.whole_sequence(len(ids), model.device)
    with torch.inference_mode():
        ours = model.language.logits(model.language(model.language.embed_tokens(ids), layout))
    assert ours.std() > 1
    torch.testing.assert_close(transformers_side.logits(theirs, ids.tolist()), ours, atol=1e-4, rtol=0)
