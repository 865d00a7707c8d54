"""Token ids and image positions of 22 conversations are the reference's, for five tokenizers."""

import numpy as np
import pytest

from tests import golden

CASES = [(checkpoint, case) for checkpoint in golden.CHECKPOINTS for case in golden.conversations(checkpoint)]


@pytest.mark.parametrize(("checkpoint", "case"), CASES, ids=[f"{c}-{k}" for c, k in CASES])
def test_conversation_has_the_token_ids_and_image_positions_of_the_reference(checkpoint: str, case: str):
    expected = golden.conversations(checkpoint)[case]
    prompt = golden.prompt(checkpoint, case)
    mask = np.zeros(len(expected["input_ids"]), dtype=bool)
    for start, length in expected["image_runs"]:
        mask[start : start + length] = True
    assert prompt.input_ids.tolist() == expected["input_ids"]
    np.testing.assert_array_equal(prompt.image_mask, mask)
    assert prompt.input_ids.dtype == np.int64
    assert prompt.image_mask.dtype == bool
    assert prompt.tiles.dtype == np.uint8
