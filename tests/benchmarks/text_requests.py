"""A seed -> the requests of a text workload: prompt lengths and output lengths, as labelling makes them.

Knows nothing of models; an end of sentence plays no part, so that every side does the same work.
"""

import math
import random
from dataclasses import dataclass

MIN_PROMPT_TOKENS, MAX_PROMPT_TOKENS = 64, 128
MIN_OUTPUT_TOKENS, MAX_OUTPUT_TOKENS = 8, 256
_MEDIAN_OUTPUT_TOKENS, _SPREAD = 40, 0.9
"""Of a log-normal: most answers are short (a question's, a box), a few are long (a page of text)."""


@dataclass(frozen=True, kw_only=True)
class TextRequest:
    prompt_words: tuple[int, ...]
    """Words of the prompt by number; one token each."""
    num_output_tokens: int


def draw_requests(
    num_requests: int,
    *,
    seed: int,
    num_words: int,
    max_output_tokens: int = MAX_OUTPUT_TOKENS,
    equal_output_tokens: int | None = None,
) -> list[TextRequest]:
    """Prompt lengths uniform, output lengths log-normal and clipped, or all `equal_output_tokens`."""
    draw = random.Random(seed)
    return [
        TextRequest(
            prompt_words=tuple(
                draw.randrange(num_words) for _ in range(draw.randint(MIN_PROMPT_TOKENS, MAX_PROMPT_TOKENS))
            ),
            num_output_tokens=_output_length(draw, max_output_tokens, equal_output_tokens),
        )
        for _ in range(num_requests)
    ]


def _output_length(draw: random.Random, longest: int, equal: int | None) -> int:
    drawn = round(draw.lognormvariate(math.log(_MEDIAN_OUTPUT_TOKENS), _SPREAD))
    return min(longest, max(MIN_OUTPUT_TOKENS, drawn)) if equal is None else equal


def in_batches(requests: list[TextRequest], size: int) -> list[list[TextRequest]]:
    """In the order of arrival."""
    return [requests[start : start + size] for start in range(0, len(requests), size)]


def padding_share(requests: list[TextRequest], batch_size: int) -> float:
    """Of the decoding rows of static batches, the share whose request was already answered."""
    computed = sum(
        len(batch) * max(request.num_output_tokens for request in batch) for batch in in_batches(requests, batch_size)
    )
    return 1 - sum(request.num_output_tokens for request in requests) / computed
