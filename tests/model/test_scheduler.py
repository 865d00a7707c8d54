"""Steps mix prompts and decoding; short ones pass long ones; pages run out, and nothing fails or is lost."""

import functools
import random
from concurrent.futures import Future

import pytest
import torch

from model.prompt import Prompt
from model.scheduler import Scheduler, share_budget
from model.sequence import ImagePrefix, Request, Sequence
from tests import golden
from tests.model.helpers import ask, engine, image, load


def sequence(name: str, request: Request) -> Sequence:
    prompt = golden.processor(name).encode(request.messages, request.images)
    return Sequence(prompt=prompt, params=request, future=Future(), max_total_tokens=4096)


def scheduler(name: str, *, cache_tokens: int = 4096, max_num_sequences: int = 16, chunk: int = 64) -> Scheduler:
    return Scheduler(
        load(name),
        golden.processor(name),
        max_num_sequences=max_num_sequences,
        prefill_chunk_tokens=chunk,
        cache_tokens=cache_tokens,
    )


def step_until_idle(steps: Scheduler, limit: int = 500) -> None:
    for _ in range(limit):
        if steps.is_idle:
            return
        steps.step()
    raise AssertionError("the scheduler did not come to an end")


def test_requests_wait_for_pages_and_all_pages_come_back():
    steps = scheduler("base-like", cache_tokens=96)
    waiting = [sequence("base-like", ask(f"Question {n} of some length", max_new_tokens=30)) for n in range(5)]
    for one in waiting:
        steps.add(one)
    steps.step()
    assert steps.admission.running
    assert steps.admission.waiting
    step_until_idle(steps)
    assert all(one.future.result(timeout=0).num_output_tokens == 30 for one in waiting)
    assert steps.cache.num_free_pages == steps.cache.num_pages


def test_step_mixes_prompts_and_decoding_within_the_budget_of_prompt_tokens():
    steps = scheduler("base-like", chunk=16)
    short, long = sequence("base-like", ask("Hi", max_new_tokens=9)), sequence("base-like", ask("word " * 60))
    steps.add(short)
    steps.step()
    steps.add(long)
    steps.step()
    assert (len(short.output_ids), long.num_cached_tokens) == (2, 16)
    steps.step()
    assert (len(short.output_ids), long.num_cached_tokens) == (3, 32)


@pytest.mark.parametrize("num_steps", [0, 1, 3], ids=["waiting", "in its prompt", "decoding"])
def test_cancelling_frees_the_pages_and_leaves_the_others_alone(num_steps: int):
    steps = scheduler("base-like", chunk=24)
    kept, cancelled = [sequence("base-like", ask("Hello there", max_new_tokens=6)) for _ in range(2)]
    steps.add(kept)
    steps.add(cancelled)
    for _ in range(num_steps):
        steps.step()
    assert cancelled.future.cancel()
    step_until_idle(steps)
    assert steps.cache.num_free_pages == steps.cache.num_pages
    with engine("base-like") as served:
        (alone,) = served.generate([ask("Hello there", max_new_tokens=6)])
    assert kept.future.result(timeout=0).token_ids == alone.token_ids


def test_error_of_one_requests_images_spares_the_others():
    steps = scheduler("base-like")
    good = sequence("base-like", ask("Hello", max_new_tokens=4))
    bad = sequence("base-like", ask("<image>", images=(image("tiny"),)))
    bad.image_sequence = torch.zeros(3, 64)  # of another image
    for one in (bad, good):
        steps.add(one)
    step_until_idle(steps)
    assert isinstance(bad.future.exception(timeout=0), AssertionError)
    assert good.future.result(timeout=0).num_output_tokens == 4
    assert steps.cache.num_free_pages == steps.cache.num_pages


@pytest.mark.parametrize(
    ("missing", "granted"),
    [
        ([], []),
        ([5], [5]),
        ([500], [100]),
        ([500, 10, 20], [70, 10, 20]),
        ([500, 90, 60], [25, 15, 60]),
        ([30, 500, 90], [30, 0, 70]),
        ([500, 500, 500], [100, 0, 0]),
    ],
    ids=[
        "nothing to do",
        "all of it",
        "a chunk of it",
        "short ones pass a long one",
        "which keeps a quarter",
        "short ones first",
        "the oldest of equals",
    ],
)
def test_budget_of_a_step_goes_to_short_prompts_and_a_share_of_it_to_the_oldest(missing: list[int], granted: list[int]):
    assert share_budget(missing, 100) == granted


def test_short_prompt_is_answered_while_a_long_one_is_read():
    steps = scheduler("base-like", chunk=32)
    long, short = sequence("base-like", ask("word " * 400)), sequence("base-like", ask("Hi", max_new_tokens=3))
    for one in (long, short):
        steps.add(one)
    while not short.future.done():
        steps.step()
    assert 0 < long.num_cached_tokens < long.num_prompt_tokens


def test_sequences_that_outgrow_the_cache_are_computed_again_and_answer_as_alone():
    requests = [ask(f"Question {n} of some length", max_new_tokens=60) for n in range(6)]
    steps = scheduler("base-like", cache_tokens=160)
    sequences = [sequence("base-like", request) for request in requests]
    for one in sequences:
        steps.add(one)
    step_until_idle(steps, limit=2000)
    assert steps.admission.num_preemptions > 0
    with engine("base-like", max_num_sequences=1) as served:
        alone = [completion.token_ids for completion in served.generate(requests)]
    assert [one.future.result(timeout=0).token_ids for one in sequences] == alone


def test_sequence_that_finds_no_pages_lets_others_pass_but_not_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("model.admission.MAX_OVERTAKEN", 3)
    long = sequence("base-like", ask("word " * 100, max_new_tokens=2))
    running = sequence("base-like", ask("word " * 50, max_new_tokens=100))
    steps = scheduler("base-like", cache_tokens=long.num_prompt_tokens + 32)
    short = [sequence("base-like", ask("Hi", max_new_tokens=2)) for _ in range(9)]
    steps.add(running)
    steps.step()
    for one in (long, *short):
        steps.add(one)
    while long.num_overtaken < 3:
        steps.step()
    assert not long.pages
    step_until_idle(steps)
    assert [one.future.result(timeout=0).num_output_tokens for one in (long, *short)] == [2] * 10
    assert long.num_overtaken <= 3 + 9, "those of one step come together"


def view(name: str = "base-like", picture: str = "tiny") -> ImagePrefix:
    prompt = view_prompt(name, picture, "x")
    return ImagePrefix(prompt=prompt, image_sequence=encoded(name, picture))


@functools.cache
def encoded(name: str, picture: str) -> torch.Tensor:
    prompt = view_prompt(name, picture, "x")
    with torch.inference_mode():
        return load(name).image_sequence(prompt.tiles, prompt.grids)


def view_prompt(name: str, picture: str, text: str) -> Prompt:
    return golden.processor(name).encode(ask(f"<image>\n{text}").messages, [image(picture)])


def question(prefix: ImagePrefix, text: str, *, picture: str = "tiny", max_new_tokens: int = 4) -> Sequence:
    request = ask(text, max_new_tokens=max_new_tokens)
    prompt = view_prompt("base-like", picture, text)
    return Sequence(
        prompt=prompt,
        params=request,
        prefix=prefix,
        image_sequence=prefix.image_sequence,
        future=Future(),
        max_total_tokens=4096,
    )


def alone(text: str, picture: str = "tiny", max_new_tokens: int = 4) -> list[int]:
    request = ask(f"<image>\n{text}", images=(image(picture),), max_new_tokens=max_new_tokens)
    with engine("base-like", max_num_sequences=1) as served:
        return served.generate([request])[0].token_ids


def test_questions_about_a_view_compute_its_images_once_and_share_their_pages():
    steps, prefix = scheduler("base-like", chunk=512), view()
    questions = [question(prefix, text) for text in ("What is it?", "Where is it?", "Why?")]
    for one in questions:
        steps.add(one)
    while not all(one.pages for one in questions):
        steps.step()
    num_whole = prefix.num_tokens // 16
    assert prefix.num_tokens > 400
    assert prefix.num_tokens % 16, "so that its last page is copied"
    shared = [one.pages[:num_whole] for one in questions]
    assert shared == [prefix.pages[:num_whole]] * 3
    assert len({one.pages[num_whole] for one in questions}) == 3
    step_until_idle(steps)
    computed = prefix.num_tokens + sum(one.num_prompt_tokens - prefix.num_tokens for one in questions)
    stats = steps.stats.snapshot(num_shared_tokens=0, num_preemptions=0, expert_loads=[])
    assert stats.num_prefill_tokens == computed
    assert steps.admission.num_shared_tokens == 3 * prefix.num_tokens
    texts = ("What is it?", "Where is it?", "Why?")
    assert [one.future.result(timeout=0).token_ids for one in questions] == [alone(text) for text in texts]


def test_pages_of_a_view_come_back_when_it_is_closed_and_nobody_uses_it_any_more():
    steps, prefix = scheduler("base-like", chunk=512), view()
    asked = question(prefix, "What is it?")
    steps.add(asked)
    while not asked.output_ids:
        steps.step()
    steps.close_prefix(prefix)
    assert steps.cache.num_used_pages > len(asked.pages) - 1
    step_until_idle(steps)
    assert asked.future.result(timeout=0).token_ids == alone("What is it?")
    assert steps.cache.num_free_pages == steps.cache.num_pages


@pytest.mark.parametrize("num_steps", [0, 1, 3], ids=["before a step", "on its way", "cached"])
def test_view_may_be_closed_at_any_time(num_steps: int):
    steps, prefix = scheduler("base-like", chunk=256), view()
    asked = question(prefix, "What is it?")
    steps.add(asked)
    for _ in range(num_steps):
        steps.step()
    steps.close_prefix(prefix)
    step_until_idle(steps)
    assert asked.future.result(timeout=0).token_ids == alone("What is it?")
    assert steps.cache.num_free_pages == steps.cache.num_pages


def test_views_that_do_not_fit_together_give_their_pages_up_and_are_computed_again():
    """The cache holds one view and a little; two are asked by turns."""
    steps, views = scheduler("base-like", cache_tokens=512, chunk=512), [view(), view()]
    for text in ("What is it?", "Why?"):
        for prefix in views:
            asked = question(prefix, text)
            steps.add(asked)
            step_until_idle(steps)
            assert asked.future.result(timeout=0).token_ids == alone(text)
    assert sum(prefix.is_cached for prefix in views) == 1


def test_questions_about_more_views_than_fit_are_all_answered():
    draw = random.Random(4)
    steps, views = scheduler("base-like", cache_tokens=512, chunk=256), [view() for _ in range(4)]
    texts = ("What is it?", "Why?", "Where is it?")
    asked = [(text, question(prefix, text, max_new_tokens=12)) for prefix in views for text in texts]
    draw.shuffle(asked)
    for _, one in asked:
        steps.add(one)
    step_until_idle(steps, limit=3000)
    wanted = {text: alone(text, max_new_tokens=12) for text in texts}
    assert all(one.future.result(timeout=0).token_ids == wanted[text] for text, one in asked)
    for prefix in views:
        steps.close_prefix(prefix)
    assert steps.cache.num_free_pages == steps.cache.num_pages
