"""The host waits for the device where tokens are read, and nowhere else in a step."""

import contextlib
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor

from model import sampler
from model.constraint_specs import Choice
from model.scheduler import Scheduler
from model.sequence import Request
from tests.gpu.helpers import ON_GPU, needs_hopper, scheduler, sequence
from tests.model.helpers import ask, image

pytestmark = [*ON_GPU, needs_hopper]

NAMES = ("small-like", "extra70-like", "extra84-like")


@contextlib.contextmanager
def waiting_is_an_error() -> Iterator[None]:
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


@pytest.fixture(autouse=True)
def _reading_tokens_may_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reads are the sampler's own; they alone are let through."""
    read = sampler.read

    def read_with_leave(values: Tensor) -> Tensor:
        mode = torch.cuda.get_sync_debug_mode()
        torch.cuda.set_sync_debug_mode("default")
        try:
            return read(values)
        finally:
            torch.cuda.set_sync_debug_mode(mode)

    monkeypatch.setattr(sampler, "read", read_with_leave)


def test_debug_mode_sees_a_wait():
    with waiting_is_an_error(), pytest.raises(RuntimeError, match="synchronizing"):
        torch.zeros(3, device="cuda").sum().item()


KINDS = {
    "greedy": {},
    "drawn": {"temperature": 0.8, "top_p": 0.9},
    "penalised": {"repetition_penalty": 1.1},
    "constrained": {"constraint": Choice(options=("yes", "no, and at some length for that matter"))},
}


def requests(**params) -> list[Request]:
    asked = [("word " * 20, ()), ("Hi", ()), ("<image>\nWhat?", (image("tiny"),))]
    return [ask(text, images=images, max_new_tokens=40, **params) for text, images in asked]


def warmed(name: str, cuda_graphs: bool, kind: str) -> Scheduler:
    """One that has answered the same before: what is compiled, captured or moved to the device is so already."""
    steps = scheduler(name, cuda_graphs=cuda_graphs)
    for request in requests(**KINDS[kind]):
        steps.add(sequence(name, request))
    while not steps.is_idle:
        steps.step()
    return steps


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("cuda_graphs", [True, False], ids=["graphs", "no graphs"])
@pytest.mark.parametrize("name", NAMES)
def test_steps_wait_for_nothing_but_the_tokens(name: str, cuda_graphs: bool, kind: str):
    """Prompts, prompts beside decoding, and decoding alone, until all are answered."""
    steps = warmed(name, cuda_graphs, kind)
    sequences = [sequence(name, request) for request in requests(**KINDS[kind])]
    with waiting_is_an_error():
        for one in sequences:
            steps.add(one)
        while not steps.is_idle:
            steps.step()
    assert all(one.future.result(timeout=0).num_output_tokens for one in sequences)
