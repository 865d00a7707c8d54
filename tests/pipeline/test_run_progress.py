"""Receipts, as the label stage and the sink make them, added up."""

import json
from dataclasses import replace

from model.engine_stats import EngineStats
from pipeline.engine_work import EngineWork
from pipeline.receipt import receipt_of
from pipeline.run_progress import RunProgress, counting
from schemas.rows import ImageRow
from tests.pipeline.outputs import BUSY, MISSING, job_of, labelled, pending, put_images, resolve
from tests.pipeline.test_throughput import Clock

FIRST = EngineStats(num_steps=10, num_running_sum=5, num_sequence_slots_sum=40, num_used_pages_sum=3, num_pages_sum=30)
SECOND = EngineStats(
    num_steps=14, num_running_sum=13, num_sequence_slots_sum=56, num_used_pages_sum=9, num_pages_sum=42
)


def receipt(rows: list[ImageRow], engine: dict[str, int]) -> dict:
    """As it leaves the pipeline: one row."""
    return {name: value for name, (value,) in receipt_of(rows, [json.dumps(engine)] * len(rows)).items()}


def rows_of_three(tmp_path) -> list[ImageRow]:
    """One labelled, one missing, one of which a recipe failed."""
    work = resolve(job_of(put_images(tmp_path / "photos", "a.jpg", "b.jpg", "c.jpg"), tmp_path / "out"))
    a, b, c = pending(work)
    return [labelled(work, a), b.failed(MISSING), labelled(work, c, error=BUSY)]


def test_engine_work_is_what_was_done_since_the_last_block():
    work = EngineWork()
    work.since_last(FIRST)
    did = work.since_last(SECOND)
    assert (did["num_steps"], did["num_running_sum"], did["num_sequence_slots_sum"]) == (4, 8, 16)


def test_answer_that_comes_late_counts_nothing_twice():
    work = EngineWork()
    assert [work.since_last(stats)["num_steps"] for stats in (SECOND, FIRST, replace(SECOND, num_steps=15))] == [
        14,
        0,
        1,
    ]


def test_progress_adds_receipts_up(tmp_path):
    clock, engine = Clock(), EngineWork()
    progress = RunProgress(8, clock=clock)
    progress.begin_labeling()
    progress.expect(7)
    for stats in (FIRST, SECOND):
        clock.now_s += 10
        progress.add(receipt(rows_of_three(tmp_path / str(stats.num_steps)), engine.since_last(stats)))
    now = progress.now()
    assert (now.phase, now.num_images_done, now.num_images, now.num_pending_images) == ("labeling", 6, 8, 1)
    assert (now.num_labels, now.num_prompt_tokens, now.num_output_tokens) == (2, 14, 6)
    assert now.labels_by_recipe == {"ocr": 2}
    assert now.quarantined_by_kind == {"missing": 2, "engine_error": 2}
    assert (now.images_per_s, now.output_tokens_per_s, now.images_per_s_since_start) == (6 / 20, 6 / 20, 6 / 20)
    assert now.eta_s == 1 / (6 / 20)
    assert (now.occupancy, now.cache_use) == (13 / 56, 9 / 42)
    summary = progress.summary(labeling_s=30.0)
    assert (summary["images_per_s"], summary["output_tokens_per_s"], summary["occupancy"]) == (0.2, 0.2, 0.232)


def test_occupancy_is_that_of_the_last_minute(tmp_path):
    clock, engine = Clock(), EngineWork()
    progress = RunProgress(8, clock=clock)
    for stats, later_s in ((FIRST, 100), (SECOND, 0)):
        progress.add(receipt(rows_of_three(tmp_path / str(later_s)), engine.since_last(stats)))
        clock.now_s += later_s
    assert progress.now().occupancy == 8 / 16


def test_expert_loads_are_added_up_over_replicas(tmp_path):
    progress, rows = RunProgress(8), rows_of_three(tmp_path)
    assert progress.summary(1.0)["expert_imbalance"] == progress.now().expert_imbalance == []
    one, other = EngineWork(), EngineWork()
    for replica, loads in ((one, ((), (4, 0))), (other, ((1, 1), (1, 1))), (one, ((2, 6), (5, 1)))):
        progress.add(receipt(rows, replica.since_last(EngineStats(num_steps=1, expert_loads=loads))))
    summary = progress.summary(1.0)
    assert summary["expert_loads"] == [[3, 7], [6, 2]]
    assert summary["expert_imbalance"] == list(progress.now().expert_imbalance) == [1.4, 1.5]


def test_expert_loads_that_come_late_count_nothing_twice():
    work = EngineWork()
    told = [EngineStats(expert_loads=loads) for loads in (((4, 2),), ((3, 1),), ((4, 5),))]
    assert [work.since_last(stats)["expert_loads"] for stats in told] == [[[4, 2]], [[0, 0]], [[0, 3]]]


def test_until_all_is_counted_nobody_says_when_the_run_ends(tmp_path):
    progress = RunProgress(6)
    assert (progress.now().num_pending_images, progress.now().eta_s) == (None, None)
    found: list[int | None] = []

    def num_images_of(shard: str) -> int:
        found.append(progress.now().num_pending_images)
        return 3

    with counting(progress, ["shard-0", "shard-1"], num_images_of):
        while progress.now().num_pending_images is None:
            pass
    assert found == [None, None]
    assert progress.now().num_pending_images == 6
