from datetime import UTC, datetime, timedelta

import pytest

from schemas.job import JobError, load_job

JOB = "name: photos\nsource: images\nrecipes: [ocr]\noutput: labels\nbudget: {}\n"
START = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)


def with_budget(text: str):
    return load_job(JOB.replace("{}", text)).budget


def test_job_without_a_budget_has_no_end():
    budget = load_job("name: photos\nsource: images\nrecipes: [ocr]\noutput: labels\n").budget
    assert (budget.max_gpu_hours, budget.max_images, budget.stops_at(START)) == (None, None, None)


@pytest.mark.parametrize(
    ("deadline", "hours"),
    [
        ("6h", 6),
        ("90m", 1.5),
        ("1h30m", 1.5),
        ("2d", 48),
        ("5400s", 1.5),
        ("2026-11-25T06:00:00Z", 8),
        ("2026-11-25 06:00:00+02:00", 6),
        ("'2026-11-25T06:00Z'", 8),
        ("2026-11-24T21:00:00Z", -1),
    ],
)
def test_deadline_is_a_moment_or_a_time_after_the_start(deadline: str, hours: float):
    assert with_budget(f"{{deadline: {deadline}}}").stops_at(START) == START + timedelta(hours=hours)


@pytest.mark.parametrize(
    ("budget", "path", "message"),
    [
        ("{deadline: 2026-12-01}", "budget.deadline", "got 2026-12-01 without a zone: add Z"),
        ("{deadline: 2026-12-01 06:00:00}", "budget.deadline", "without a zone"),
        ("{deadline: '2026-12-01T06:00'}", "budget.deadline", "without a zone"),
        ("{deadline: 6}", "budget.deadline", "such as 6h, 90m or 1h30m, got 6"),
        ("{deadline: 1.5h}", "budget.deadline", "got '1.5h'"),
        ("{deadline: 0h}", "budget.deadline", "got '0h'"),
        ("{deadline: 30m1h}", "budget.deadline", "got '30m1h'"),
        ("{deadline: ''}", "budget.deadline", "got ''"),
        ("{deadline: 99999999999999h}", "budget.deadline", "got '99999999999999h'"),
        ("{deadline: tonight}", "budget.deadline", "got 'tonight'"),
        ("{deadline: [6h]}", "budget.deadline", "got a list"),
        ("{max_images: 0}", "budget.max_images", "at least 1, got 0"),
        ("{max_images: 2.5}", "budget.max_images", "a whole number, got 2.5"),
        ("{max_images: true}", "budget.max_images", "must be a number, got true"),
        ("{max_gpu_hours: 0}", "budget.max_gpu_hours", "greater than 0, got 0"),
        ("{max_gpu_hours: .inf}", "budget.max_gpu_hours", "a finite number"),
        ("{max_hours: 1}", "budget.max_hours", "did you mean 'max_gpu_hours'?"),
    ],
)
def test_budget_that_cannot_be_kept_to_is_refused_in_one_line(budget: str, path: str, message: str):
    with pytest.raises(JobError) as caught:
        with_budget(budget)
    (problem,) = caught.value.problems
    assert problem.path == path
    assert message in problem.message
