"""Logits -> next tokens, each sequence by its own parameters and its own random numbers.

Because every sequence draws from its own seeded generator, a sampled result does not depend on the batch it ran in.
The host reads from the device once, the tokens; and once more where tokens are drawn, which it does itself. Shapes: B
sequences, C of them whose tokens are drawn, V vocabulary.
"""

from collections.abc import Sequence as Seq

import numpy as np
import torch
from torch import Tensor

from model.constraints import mask_rows
from model.sequence import Sequence
from model.transfers import to_device


def sample(logits_BV: Tensor, sequences: Seq[Sequence]) -> tuple[list[int], list[float]]:
    """Chooses one token per sequence.

    Args:
        logits_BV: float32.

    Returns: token ids, and their natural log-probabilities under the unmodified logits.
    """
    open_BV = _penalized(_constrained(logits_BV, sequences), sequences)
    tokens_B = open_BV.argmax(dim=-1)
    drawn = [row for row, sequence in enumerate(sequences) if sequence.params.temperature > 0]
    if drawn:
        rows_C = to_device(drawn, open_BV.device)
        drawn_CV = read(open_BV[rows_C]).double()
        ids = [_draw(logits_V, sequences[row]) for logits_V, row in zip(drawn_CV, drawn, strict=True)]
        tokens_B[rows_C] = to_device(ids, open_BV.device)
    # Only the chosen ones' are wanted: the whole log-softmax would be written and read for nothing.
    chosen_B = logits_BV.gather(1, tokens_B[:, None])[:, 0]
    logprobs_B = chosen_B - logits_BV.logsumexp(dim=-1)
    tokens, logprobs = read(torch.stack([tokens_B.double(), logprobs_B.double()])).tolist()  # exact up to 2^53
    return [int(token) for token in tokens], logprobs


def read(values: Tensor) -> Tensor:
    """On the host: the one place where a step waits for the device."""
    return values.cpu()


def _constrained(logits_BV: Tensor, sequences: Seq[Sequence]) -> Tensor:
    """-inf for whatever breaks the form that a sequence's answer must have."""
    rows = [row for row, sequence in enumerate(sequences) if sequence.constraint is not None]
    allowed = [sequence.constraint.allowed_ids() for sequence in sequences if sequence.constraint is not None]
    return mask_rows(logits_BV, rows, allowed) if rows else logits_BV


def _penalized(logits_BV: Tensor, sequences: Seq[Sequence]) -> Tensor:
    rows = [row for row, sequence in enumerate(sequences) if sequence.params.repetition_penalty != 1.0]
    if not rows:
        return logits_BV
    penalized_BV = logits_BV.clone()
    for row in rows:
        penalized_BV[row] = penalize_repetition(logits_BV[row], sequences[row])
    return penalized_BV


def _draw(logits_V: Tensor, sequence: Sequence) -> int:
    """By the sequence's own generator, on the host, so that a seed means the same on every device."""
    params = sequence.params
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
    ids = to_device(seen_ids, logits_V.device)
    seen, penalty = logits_V[ids], sequence.params.repetition_penalty
    return logits_V.scatter(0, ids, torch.where(seen < 0, seen * penalty, seen / penalty))


def keep_top_p(probabilities_V: Tensor, top_p: float) -> Tensor:
    """The smallest set of likeliest tokens that reaches `top_p` (at least one); others get 0 (arXiv 1904.09751)."""
    sorted_V, order_V = probabilities_V.sort(descending=True, stable=True)
    before_V = sorted_V.cumsum(0) - sorted_V
    return torch.zeros_like(probabilities_V).scatter(0, order_V, sorted_V.where(before_V < top_p, 0.0))
