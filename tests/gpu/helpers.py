"""What the tests on a GPU share: models in bfloat16, schedulers over them, and what "the same tokens" means there."""

import functools
from collections.abc import Sequence as Seq
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from model import checkpoint as checkpoints
from model.bench.synthetic import byte_processor, random_model
from model.constraints import compile_constraint
from model.deepseek_vl2 import DeepseekVL2
from model.prompt import Processor, Prompt
from model.scheduler import Scheduler
from model.sequence import Request, Sequence
from model.variants import VARIANTS, variant_config
from tests import golden

CUDA = torch.device("cuda")
DECIDED_MARGIN = 0.5
"""Sums of bfloat16 in another order move logits of deviation 2.3 by up to 0.25 at 9 of 10 positions (on a CPU):
two that are nearer to each other than this may legitimately change places."""
MAX_REROUTED = 2
"""Of 15 answers. At one position in a hundred it is a router that was undecided, and another expert moves logits by 1
and more."""

ON_GPU = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
needs_hopper = pytest.mark.skipif(
    not torch.cuda.is_available() or torch.cuda.get_device_capability()[0] not in (9, 10),
    reason="torch's grouped product waits for the device on other GPUs",
)


@functools.cache
def load(name: str) -> DeepseekVL2:
    """The built-in checkpoint, a golden one, or a released variant with random weights."""
    if name in VARIANTS:
        return random_model(variant_config(name), device=CUDA, dtype=torch.bfloat16)
    return checkpoints.load(_folder(name), device=CUDA, dtype=torch.bfloat16)


@functools.cache
def processor(name: str) -> Processor:
    return byte_processor(variant_config(name)) if name in VARIANTS else Processor.from_checkpoint(_folder(name))


def _folder(name: str) -> Path | str:
    return name if name == "nano" else golden.checkpoint_folder(name)


def scheduler(name: str, *, cuda_graphs: bool) -> Scheduler:
    return Scheduler(
        load(name),
        processor(name),
        max_num_sequences=9,
        prefill_chunk_tokens=64,
        cache_tokens=4096,
        cuda_graphs=cuda_graphs,
    )


@torch.inference_mode()
def sequence(name: str, request: Request) -> Sequence:
    prompt = processor(name).encode(request.messages, request.images)
    images = load(name).image_sequence(prompt.tiles, prompt.grids) if prompt.images else None
    constraint = None
    if request.constraint is not None:
        tokenizer, num_logits = processor(name).tokenizer, load(name).config.language.vocab_size
        constraint = compile_constraint(
            request.constraint, tokenizer, max_new_tokens=request.max_new_tokens, num_logits=num_logits
        )
    return Sequence(
        prompt=prompt,
        params=request,
        image_sequence=images,
        constraint=constraint,
        future=Future(),
        max_total_tokens=load(name).config.language.max_position_embeddings,
    )


def answers(name: str, requests: Seq[Request], *, cuda_graphs: bool) -> list[list[int]]:
    """All run together."""
    steps = scheduler(name, cuda_graphs=cuda_graphs)
    answered = run_all(name, steps, requests)
    assert bool(steps.decode_runner and steps.decode_runner.captured_sizes) == cuda_graphs
    return answered


def run_all(name: str, steps: Scheduler, requests: Seq[Request]) -> list[list[int]]:
    sequences = [sequence(name, request) for request in requests]
    for one in sequences:
        steps.add(one)
    while not steps.is_idle:
        steps.step()
    return [one.future.result(timeout=0).token_ids for one in sequences]


def assert_same_where_decided(
    name: str, requests: Seq[Request], answers: Seq[list[int]], others: Seq[list[int]]
) -> None:
    """Equal up to the first token at which the model itself was undecided between the two."""
    margins = [margin_between(name, *rows) for rows in zip(requests, answers, others, strict=True)]
    assert sum(margin > DECIDED_MARGIN for margin in margins) <= MAX_REROUTED, margins


def margin_between(name: str, request: Request, tokens: list[int], others: list[int]) -> float:
    """By how much the model prefers one of the two tokens at which the answers part; 0 where they do not."""
    pairs = zip(tokens, others, strict=False)
    index = next((index for index, (one, other) in enumerate(pairs) if one != other), None)
    if index is None:
        assert len(tokens) == len(others)
        return 0.0
    prompt = continued(processor(name).encode(request.messages, request.images), tokens[:index])
    with torch.inference_mode():
        logits_V = load(name).logits(prompt)[-1]
    return (logits_V[tokens[index]] - logits_V[others[index]]).abs().item()


def continued(prompt: Prompt, token_ids: list[int]) -> Prompt:
    return replace(
        prompt,
        input_ids=np.concatenate([prompt.input_ids, np.array(token_ids, dtype=np.int64)]),
        image_mask=np.concatenate([prompt.image_mask, np.zeros(len(token_ids), dtype=bool)]),
    )
