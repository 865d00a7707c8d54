"""Features, embeddings, logits and generated tokens are the reference's within float noise.

The reference differs from itself (chunked against plain) by up to 1.5e-5 on logits of standard deviation 2.3; the
tolerances below are the smallest that leave room for another order of summation. Text alone would not do: a wrong
GELU or norm epsilon leaves every greedy token of these cases unchanged.
"""

import functools

import numpy as np
import pytest
import torch

from model import checkpoint as checkpoints
from model.deepseek_vl2 import DeepseekVL2
from model.engine import Engine, EngineConfig, Request
from model.prompt import Processor
from tests import golden

EMBEDDING_TOLERANCE = 5e-5
LOGIT_TOLERANCE = 1e-4
DECIDED_MARGIN = 1e-3
"""A greedy choice whose two best logits are nearer than this may legitimately go the other way."""

MODEL_CASES = golden.model_cases()
IDS = [f"{checkpoint}-{case}" for checkpoint, case in MODEL_CASES]


@functools.cache
def load(name: str) -> DeepseekVL2:
    return checkpoints.load(golden.checkpoint_folder(name))


def engine(name: str, **config: int) -> Engine:
    return Engine(load(name), Processor.from_checkpoint(golden.checkpoint_folder(name)), config=EngineConfig(**config))


def request(name: str, case: str, **params) -> Request:
    messages = golden.conversations(name)[case]["messages"]
    return Request(messages=messages, images=golden.images_of(messages), **{"max_new_tokens": 32, **params})


def assert_same_where_decided(actual: list[int], expected: np.ndarray, margins: np.ndarray):
    """Tokens agree up to the first step at which the reference itself was undecided."""
    undecided = np.flatnonzero(margins[: len(expected)] <= DECIDED_MARGIN)
    end = undecided[0] if len(undecided) else len(expected)
    assert actual[:end] == expected[:end].tolist()


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
def test_vision_features_and_image_tokens_match(name: str):
    expected = golden.outputs(name, "vision")
    tile = golden.prompt(name, "one_wide").tiles[:1]
    np.testing.assert_allclose(
        load(name).vision_features(tile)[0], expected["vision_features"], rtol=0, atol=EMBEDDING_TOLERANCE
    )
    np.testing.assert_allclose(
        load(name).image_embeddings(tile)[0], expected["projector_output"], rtol=0, atol=EMBEDDING_TOLERANCE
    )


@pytest.mark.parametrize(("name", "case"), MODEL_CASES, ids=IDS)
def test_prompt_embeddings_match(name: str, case: str):
    expected = golden.outputs(name, case)
    embeds_TD = load(name).embed(golden.prompt(name, case)).numpy()
    np.testing.assert_allclose(embeds_TD[expected["embeds_rows"]], expected["embeds"], rtol=0, atol=EMBEDDING_TOLERANCE)
    np.testing.assert_allclose(
        embeds_TD.astype(np.float64).sum(axis=1), expected["embeds_row_sum"], rtol=0, atol=64 * EMBEDDING_TOLERANCE
    )


@pytest.mark.parametrize(("name", "case"), MODEL_CASES, ids=IDS)
def test_logits_match(name: str, case: str):
    expected = golden.outputs(name, case)
    logits_TV = load(name).logits(golden.prompt(name, case))
    assert logits_TV.dtype == torch.float32
    np.testing.assert_allclose(logits_TV[expected["positions"]], expected["logits"], rtol=0, atol=LOGIT_TOLERANCE)


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
def test_greedy_tokens_match_with_all_conversations_in_one_batch(name: str):
    cases = [case for checkpoint, case in MODEL_CASES if checkpoint == name]
    with engine(name) as served:
        completions = served.generate([request(name, case) for case in cases])
    for case, completion in zip(cases, completions, strict=True):
        expected = golden.outputs(name, case)
        assert_same_where_decided(completion.token_ids, expected["gen_tokens"], expected["gen_margins"])


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
def test_greedy_tokens_match_with_the_prompt_computed_in_chunks(name: str):
    """Chunks of 64, as in the goldens' own chunked runs, and each prompt alone."""
    cases = [case for checkpoint, case in MODEL_CASES if checkpoint == name]
    with engine(name, prefill_chunk_tokens=64, max_num_sequences=1) as served:
        completions = served.generate([request(name, case) for case in cases])
    for case, completion in zip(cases, completions, strict=True):
        expected = golden.outputs(name, case)
        assert_same_where_decided(completion.token_ids, expected["inc_tokens"], expected["inc_margins"])


@pytest.mark.parametrize(("name", "batch"), golden.batch_cases(), ids=lambda value: value)
def test_both_rows_of_a_padded_pair_match_when_run_together(name: str, batch: str):
    """The reference pads on the left; we never pad. Its plain (`gen_*`) rows equal running each row alone."""
    expected = golden.outputs(name, batch)
    cases = batch.removeprefix("batch__").split("__")
    with engine(name, prefill_chunk_tokens=64) as served:
        completions = served.generate([request(name, case) for case in cases])
    for row, completion in enumerate(completions):
        num_tokens = len(completion.token_ids)  # a row that stopped early is filled up with padding there
        assert_same_where_decided(
            completion.token_ids, expected["gen_tokens"][row][:num_tokens], expected["gen_margins"][row]
        )
    for row, case in enumerate(cases):
        last_logits = load(name).logits(golden.prompt(name, case))[-1]
        np.testing.assert_allclose(last_logits, expected["gen_first_logits"][row], rtol=0, atol=LOGIT_TOLERANCE)


@pytest.mark.parametrize("name", golden.CHECKPOINTS)
@pytest.mark.parametrize("case", ["one_wide", "text_only"])
def test_tokens_with_repetition_penalty_match(name: str, case: str):
    expected = golden.outputs(name, case)
    with engine(name) as served:
        (completion,) = served.generate([request(name, case, repetition_penalty=1.1)])
    assert_same_where_decided(completion.token_ids, expected["rp11_tokens"], expected["rp11_margins"])


def test_generation_stops_at_the_end_of_sentence_as_in_the_reference():
    expected = golden.outputs("base-like", "one_tall")["gen_tokens"].tolist()
    with engine("base-like") as served:
        (completion,) = served.generate([request("base-like", "one_tall")])
    assert completion.token_ids == expected
    assert expected[-1] == 1
    assert completion.finish_reason == "stop"
    assert "end▁of▁sentence" not in completion.text
