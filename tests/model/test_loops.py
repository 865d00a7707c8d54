"""An answer that goes round in circles ends early, at the same token in whatever batch it runs."""

import functools
import random
from concurrent.futures import Future

import pytest
import torch

from model import checkpoint
from model.constraint_specs import BoxList
from model.deepseek_vl2 import DeepseekVL2
from model.engine import Completion, Engine, EngineConfig, Request
from model.loops import CHECK_EVERY_TOKENS, LoopStop
from model.scheduler import Scheduler
from model.sequence import Sequence
from tests import golden
from tests.model.test_scheduler import step_until_idle

STOP = LoopStop(max_period_tokens=8, min_repeats=12, min_tokens=24)
STARTS = ["the", "red", "sign above", "a", "door", "12", "houses", "behind it"]


@functools.cache
def going_in_circles() -> DeepseekVL2:
    """base-like with weights by which token t is followed by another of the same eight, in a circle of 1 to 8."""
    model = checkpoint.load(golden.checkpoint_folder("base-like"))
    language = model.language
    with torch.no_grad():
        for name, weight in language.named_parameters():
            if "o_proj" in name or "down_proj" in name:
                weight.zero_()
        language.norm.weight.fill_(1)
        num_ids = len(language.lm_head.weight)
        ids = torch.arange(num_ids)
        following = ids // 8 * 8 + (ids % 8 + 1) % (1 + ids // 8 % 8)
        units = torch.nn.functional.normalize(
            torch.randn(language.lm_head.weight.shape, generator=torch.manual_seed(0))
        )
        language.lm_head.weight.copy_(units)
        language.embed_tokens.weight.copy_(units[following])
    return model


def looping(start: str, stop: LoopStop | None = STOP, max_new_tokens: int = 200) -> Request:
    messages = [{"role": "user", "content": "Go on"}, {"role": "assistant", "content": start}]
    return Request(messages=messages, max_new_tokens=max_new_tokens, ignore_eos=True, stop_on_loop=stop)


def engine(**config: int) -> Engine:
    return Engine(going_in_circles(), golden.processor("base-like"), config=EngineConfig(**config))


def ended(completions: list[Completion]) -> list[tuple[list[int], str]]:
    return [(one.token_ids, one.finish_reason) for one in completions]


def alone(requests: list[Request]) -> list[tuple[list[int], str]]:
    with engine(max_num_sequences=1) as served:
        return [one for request in requests for one in ended(served.generate([request]))]


def together(requests: list[Request]) -> list[tuple[list[int], str]]:
    with engine(prefill_chunk_tokens=16) as served:
        return ended(served.generate(requests))


@pytest.mark.parametrize("period", [1, 2, 7, 64])
def test_tail_that_repeats_a_piece_has_its_period(period: int):
    piece = list(range(100, 100 + period))
    assert LoopStop().period_of_tail([5, 6, 7, *(piece * 100)[: 8 * 64 + 3]]) == period


def test_tail_of_a_longer_period_than_allowed_does_not_loop():
    assert LoopStop().period_of_tail(list(range(65)) * 20) is None


def test_too_few_repetitions_or_tokens_are_no_loop():
    assert LoopStop(min_repeats=8, min_tokens=2).period_of_tail([1, 2, 3] * 7) is None
    assert LoopStop(min_repeats=8, min_tokens=2).period_of_tail([1, 2, 3] * 8) == 3
    assert LoopStop(min_repeats=2, min_tokens=96).period_of_tail([9] * 95) is None
    assert LoopStop(min_repeats=2, min_tokens=96).period_of_tail([9] * 96) == 1


def test_loop_that_was_left_again_does_not_count():
    assert LoopStop().period_of_tail([1, 2] * 100 + [3]) is None


def test_tail_is_judged_as_plainly_written_code_judges_it():
    """Few different tokens, so that most random tails are near a loop."""
    draw = random.Random(6)
    stop = LoopStop(max_period_tokens=4, min_repeats=3, min_tokens=7)
    found = set()
    for _ in range(3000):
        ids = [draw.randrange(2) for _ in range(draw.randrange(1, 14))]
        wanted = None
        for period in (4, 3, 2, 1):
            length = max(7, 3 * period)
            if len(ids) >= length and all(ids[-1 - i] == ids[-1 - i - period] for i in range(length - period)):
                wanted = period
        assert stop.period_of_tail(ids) == wanted, ids
        found.add(wanted)
    assert found == {None, 1, 2, 3, 4}


@pytest.mark.parametrize("name", ["max_period_tokens", "min_repeats", "min_tokens"])
def test_refused_limit_names_its_field(name: str):
    with pytest.raises(ValueError, match=f"{name} is 0"):
        LoopStop(**{name: 0})


def test_looping_answer_ends_early_and_keeps_its_tokens():
    with engine() as served:
        free, stopped = served.generate([looping("the", stop=None), looping("the")])
    num_tokens = stopped.num_output_tokens
    assert (free.finish_reason, stopped.finish_reason) == ("length", "loop")
    assert stopped.token_ids == free.token_ids[:num_tokens]
    assert stopped.text == golden.processor("base-like").decode(stopped.token_ids)
    assert num_tokens % CHECK_EVERY_TOKENS == 0
    assert STOP.period_of_tail(free.token_ids[:num_tokens]) is not None
    assert STOP.period_of_tail(free.token_ids[: num_tokens - CHECK_EVERY_TOKENS]) is None


def test_looping_answers_end_together_where_each_ends_alone():
    requests = [looping(start) for start in STARTS]
    answers = together(requests)
    assert answers == alone(requests)
    assert {reason for _, reason in answers} == {"loop"}
    assert len({len(ids) for ids, _ in answers}) > 1, "circles of different lengths"


def test_looping_answer_that_was_computed_again_ends_where_it_would_have():
    requests = [looping(start) for start in STARTS]
    steps = Scheduler(
        going_in_circles(),
        golden.processor("base-like"),
        max_num_sequences=16,
        prefill_chunk_tokens=64,
        cache_tokens=160,
    )
    sequences = [
        Sequence(
            prompt=golden.processor("base-like").encode(request.messages),
            params=request,
            future=Future(),
            max_total_tokens=4096,
        )
        for request in requests
    ]
    for one in sequences:
        steps.add(one)
    step_until_idle(steps, limit=5000)
    assert steps.admission.num_preemptions > 0
    assert ended([one.future.result() for one in sequences]) == alone(requests)


def test_answer_that_is_full_between_two_looks_at_its_tail_is_looked_at():
    starts = STARTS[:3]
    for start, (ids, _) in zip(starts, together([looping(one, None, 110) for one in starts]), strict=True):
        first = next(n for n in range(24, len(ids)) if STOP.period_of_tail(ids[:n]) is not None)
        requests = [looping(start, max_new_tokens=n) for n in (first - 1, first)]
        assert together(requests) == [(ids[: first - 1], "length"), (ids[:first], "loop")]


def test_form_that_ends_by_itself_is_not_stopped():
    eager = LoopStop(max_period_tokens=4, min_repeats=2, min_tokens=2)
    messages = [{"role": "user", "content": "Where?"}, {"role": "assistant", "content": ""}]
    form = BoxList(label="x" * 60, max_boxes=2)
    bound = Request(messages=messages, max_new_tokens=300, constraint=form, stop_on_loop=eager)
    with engine() as served:
        (completion,) = served.generate([bound])
    assert completion.finish_reason == "stop"
    assert any(eager.period_of_tail(completion.token_ids[:n]) for n in range(16, 60, 16)), "its label repeats itself"
