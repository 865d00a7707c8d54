"""Logits -> next tokens, each sequence by its own parameters and its own random numbers.

Because every sequence draws from its own seeded generator, a sampled result does not depend on the batch it ran in.
Shapes: B sequences, V vocabulary.
"""

from collections.abc import Sequence as Seq

import numpy as np
import torch
from torch import Tensor

from model.constraints import mask_rows
from model.sequence import Sequence


def sample(logits_BV: Tensor, sequences: Seq[Sequence]) -> tuple[list[int], list[float]]:
    """Chooses one token per sequence.

    Args:
        logits_BV: float32.

    Returns: token ids, and their natural log-probabilities under the unmodified logits.
    """
    open_BV = _constrained(logits_BV, sequences)
    tokens_B = open_BV.argmax(dim=-1)
    for row, sequence in enumerate(sequences):
        params = sequence.params
        if params.temperature > 0 or params.repetition_penalty != 1.0:
            tokens_B[row] = _choose(open_BV[row], sequence)
    # Only the chosen ones' are wanted: the whole log-softmax would be written and read for nothing.
    chosen_B = logits_BV.gather(1, tokens_B[:, None])[:, 0]
    logprobs_B = chosen_B - logits_BV.logsumexp(dim=-1)
    return tokens_B.tolist(), logprobs_B.tolist()


def _constrained(logits_BV: Tensor, sequences: Seq[Sequence]) -> Tensor:
    """-inf for whatever breaks the form that a sequence's answer must have."""
    rows = [row for row, sequence in enumerate(sequences) if sequence.constraint is not None]
    allowed = [sequence.constraint.allowed_ids() for sequence in sequences if sequence.constraint is not None]
    return mask_rows(logits_BV, rows, allowed) if rows else logits_BV


def _choose(logits_V: Tensor, sequence: Sequence) -> int:
    params = sequence.params
    if params.repetition_penalty != 1.0:
        logits_V = penalize_repetition(logits_V, sequence)
    if params.temperature == 0:
        return int(logits_V.argmax())
    logits_V = logits_V.double().cpu()
    # The largest logit becomes 0 before the division, or a very low temperature would make several of them infinite.
    probabilities_V = ((logits_V - logits_V.max()) / params.temperature).softmax(dim=-1)
    if params.top_p < 1:
        probabilities_V = keep_top_p(probabilities_V, params.top_p)
    if sequence.generator is None:
        sequence.generator = torch.Generator().manual_seed(params.seed)
    return int(torch.multinomial(probabilities_V, 1, generator=sequence.generator))


def penalize_repetition(logits_V: Tensor, sequence: Sequence) -> Tensor:
    """CTRL's penalty (arXiv 1909.05858, section 4.1) on every id of prompt and output, image positions included."""
    seen_ids = np.union1d(sequence.prompt.input_ids, sequence.output_ids).astype(np.int64)
    seen_ids = seen_ids[seen_ids < len(logits_V)]  # <image> may lie past the vocabulary
    ids = torch.from_numpy(seen_ids).to(logits_V.device)
    seen, penalty = logits_V[ids], sequence.params.repetition_penalty
    return logits_V.scatter(0, ids, torch.where(seen < 0, seen * penalty, seen / penalty))


def keep_top_p(probabilities_V: Tensor, top_p: float) -> Tensor:
    """The smallest set of likeliest tokens that reaches `top_p` (at least one); others get 0 (arXiv 1904.09751)."""
    sorted_V, order_V = probabilities_V.sort(descending=True, stable=True)
    before_V = sorted_V.cumsum(0) - sorted_V
    return torch.zeros_like(probabilities_V).scatter(0, order_V, sorted_V.where(before_V < top_p, 0.0))
