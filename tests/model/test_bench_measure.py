"""From times to rates; what fits a memory limit; and that outputs have the length that was asked for."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from model.bench.measure import EngineBench, PhaseTimes, Rate
from model.bench.memory import affordable_tokens
from model.bench.profiling import profile_phases
from model.bench.workload import PROMPTS
from model.checkpoint import load
from model.engine import Completion, Engine, EngineConfig
from model.prompt import Processor
from tests.model.helpers import ask


@pytest.fixture(scope="module")
def nano() -> Iterator[Engine]:
    config = EngineConfig(max_num_sequences=2, cache_tokens=512)
    with Engine(load("nano"), Processor.from_checkpoint("nano"), config=config) as engine:
        yield engine


def test_rate_is_the_median_of_the_repeats_and_their_range():
    assert Rate.of([3.0, 1.0, 2.0]) == Rate(median=2.0, lowest=1.0, highest=3.0)


def test_decode_is_what_a_whole_run_takes_beyond_its_neighbour_that_stopped_at_the_first_token():
    times = PhaseTimes(
        num_prompt_tokens=[400, 400, 400],
        num_later_tokens=60,
        first_token_s=[2.0, 1.0, 4.0],
        all_tokens_s=[5.0, 7.0, 6.0],
    )
    assert times.prefill_s == 2.0
    assert times.prefill_rate() == Rate(median=200.0, lowest=100.0, highest=400.0)
    assert times.decode_rate() == Rate(median=20.0, lowest=10.0, highest=30.0)


class BenchOnABusyMachine(EngineBench):
    """Its first-token runs take what they are told to, whole runs a second."""

    def __init__(self, engine: Engine, first_token_s: list[float]) -> None:
        super().__init__(engine, batch=1, output_tokens=7, repeats=1)
        self._first_token_s = first_token_s

    def answer_texts(self, num_prompt_tokens: int, num_output_tokens: int) -> tuple[float, list[Completion]]:
        _, completions = super().answer_texts(num_prompt_tokens, num_output_tokens)
        return (self._first_token_s.pop(0) if num_output_tokens == 1 else 1.0), completions


def test_pair_of_runs_in_which_decode_took_no_time_is_measured_again(nano: Engine):
    times = BenchOnABusyMachine(nano, [1.5, 1.0, 0.5, 0.25]).phases(40)
    assert (times.first_token_s, times.all_tokens_s) == ((0.5,), (1.0,))
    assert times.num_prompt_tokens[0] in range(30, 41)


def test_decode_that_never_takes_time_is_an_error_and_no_figure(nano: Engine):
    with pytest.raises(RuntimeError, match="7 output tokens took no longer than 1, 5 times in a row"):
        BenchOnABusyMachine(nano, [1.0] * 5).phases(40)


def test_profile_holds_a_trace_and_a_table_of_each_phase(nano: Engine, tmp_path: Path):
    bench = EngineBench(nano, batch=2, output_tokens=3, repeats=1)
    folder = tmp_path / "profile"
    profile_phases(bench, folder, num_prompt_tokens=40, num_decode_tokens=150, prefill_s=0.02)
    for phase in ("prefill", "decode"):
        assert json.loads((folder / f"{phase}.json").read_text())["traceEvents"]
        assert "aten::" in (folder / f"{phase}.txt").read_text()
    elapsed_s, _ = bench.answer_texts(40, 1)  # what the profile cut off has left the engine
    assert elapsed_s > 0


def test_profile_that_begins_when_decode_is_over_is_refused(nano: Engine, tmp_path: Path):
    bench = EngineBench(nano, batch=1, output_tokens=3, repeats=1)
    with pytest.raises(RuntimeError, match="the decode phase was over before the profiler saw it"):
        profile_phases(bench, tmp_path, num_prompt_tokens=40, num_decode_tokens=2, prefill_s=2.0)


def test_cache_takes_what_the_limit_leaves_beside_everything_else():
    sizes = {"bytes_per_token": 31_104, "num_wanted": 10**9, "num_needed": 2247}
    tokens = affordable_tokens(limit_bytes=40e9, taken_bytes=35e9, **sizes)
    assert 35e9 + tokens * 31_104 <= 0.97 * 40e9 < 35e9 + (tokens + 1) * 31_104


def test_cache_is_no_larger_than_wanted():
    sizes = {"bytes_per_token": 31_104, "num_wanted": 5000, "num_needed": 2247}
    assert affordable_tokens(limit_bytes=40e9, taken_bytes=35e9, **sizes) == 5000


@pytest.mark.parametrize("taken_bytes", [38.75e9, 50e9])
def test_limit_without_room_for_one_sequence_is_refused(taken_bytes: float):
    sizes = {"bytes_per_token": 31_104, "num_wanted": 5000, "num_needed": 2247}
    with pytest.raises(ValueError, match="one sequence needs 2247: raise --max-memory-gb or lower --batch"):
        affordable_tokens(limit_bytes=40e9, taken_bytes=taken_bytes, **sizes)


def test_answer_goes_on_past_an_end_of_sentence_that_is_to_be_ignored():
    processor = Processor.from_checkpoint("nano")
    with Engine(load("nano"), processor) as engine:
        (free,) = engine.generate([ask("How many?", max_new_tokens=4)])
        processor.tokenizer.stop_token_ids = frozenset(free.token_ids[:1])
        (stopped,) = engine.generate([ask("How many?", max_new_tokens=4)])
        (ignoring,) = engine.generate([ask("How many?", max_new_tokens=4, ignore_eos=True)])
    assert (stopped.num_output_tokens, stopped.finish_reason) == (1, "stop")
    assert (ignoring.num_output_tokens, ignoring.finish_reason) == (4, "length")
    assert ignoring.token_ids[0] == free.token_ids[0]


def test_runs_answer_every_prompt_with_the_tokens_asked_for(nano: Engine):
    bench = EngineBench(nano, batch=2, output_tokens=3, repeats=1)
    elapsed_s, completions = bench.answer_texts(50, 3)
    assert [completion.num_output_tokens for completion in completions] == [3, 3]
    assert elapsed_s > 0
    assert bench.label_images(3, (1, 1), PROMPTS, 2) > 0  # asserts the lengths itself
