"""Requests of every kind, and the answers that each gets alone."""

import functools
import random

from model.engine import Completion, Request
from tests.model.helpers import engine, image

NAMES = ("small-like", "base-like", "tiny-like")
WORDS = ["the", "red", "sign", "above", "a", "door", "says", "open", "and", "12", "houses", "stand", "behind", "it"]
WAIT_S = 60
"""Longer than anything here takes: it turns a hang into a failure."""


def random_requests(name: str, *, sampled: bool) -> list[Request]:
    """Prompts of 10 to 900 tokens, most without an image, answers of 1 to 20 tokens."""
    draw = random.Random(f"{name} {sampled}")
    requests = []
    for index in range(9):
        images = [image("tiny")] * (1 if index == 2 else 2 if index == 5 else 0)
        text = " ".join(draw.choice(WORDS) for _ in range(draw.choice([1, 5, 17, 60, 110])))
        system = [{"role": "system", "content": "Be brief."}] if draw.random() < 0.3 else []
        prefix = " ".join(draw.choice(WORDS) for _ in range(draw.choice([0, 0, 3])))
        params = {"temperature": 0.9, "top_p": 0.95, "seed": index, "repetition_penalty": 1.05} if sampled else {}
        user = {"role": "user", "content": "<image>" * len(images) + text}
        messages = [*system, user, {"role": "assistant", "content": prefix}]
        max_new_tokens = draw.choice([1, 2, 8, 20])
        requests.append(Request(messages=messages, images=images, max_new_tokens=max_new_tokens, **params))
    return requests


def answers(completions: list[Completion]) -> list[tuple[list[int], str]]:
    return [(completion.token_ids, completion.finish_reason) for completion in completions]


@functools.cache
def answers_alone(name: str, sampled: bool) -> list[tuple[list[int], str]]:
    with engine(name, max_num_sequences=1, prefill_chunk_tokens=4096) as served:
        return answers(served.generate(random_requests(name, sampled=sampled)))
