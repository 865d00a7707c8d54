"""What a run says while it runs, and how whoever watches it from elsewhere ends."""

import contextlib
import dataclasses

import pytest

from jobs import exit_codes
from jobs.exit_codes import EXIT_BUDGET, EXIT_DONE, EXIT_FAILED, EXIT_INTERRUPTED
from jobs.progress import Lines
from jobs.progress_text import duration, line_of
from jobs.watch import watch_run
from pipeline.budget import BudgetSpentError
from pipeline.lease import hold_lease
from pipeline.ledger import RunFolder
from pipeline.progress import Progress

HALFWAY = Progress(
    phase="labeling",
    num_images_done=40,
    num_images=100,
    num_pending_images=60,
    num_labels=37,
    num_quarantined_images=3,
    quarantined_by_kind={"unreadable": 2, "missing": 1},
    images_per_s=0.5,
    output_tokens_per_s=12.3,
    occupancy=0.75,
    eta_s=120,
)


def test_line_tells_counts_reasons_speed_and_what_is_left():
    assert line_of(dataclasses.asdict(HALFWAY)) == (
        "labeling: 40/100 images, 37 labels, 3 quarantined (2 unreadable, 1 missing), "
        "0.50 images/s, 12.3 tokens/s, 75% occupied, 60 pending, 2 min to go"
    )


def test_line_leaves_out_what_nobody_knows_yet():
    begun = Progress(phase="labeling", num_images=100)
    assert line_of(dataclasses.asdict(begun)) == "labeling: 0/100 images, 0 labels"
    assert line_of({}) == "looking at the source, the checkpoint and the output"


@pytest.mark.parametrize(("seconds", "text"), [(5, "5 s"), (119, "119 s"), (120, "2 min"), (5430, "1 h 30 min")])
def test_durations(seconds: float, text: str):
    assert duration(seconds) == text


def test_between_two_lines_only_a_change_of_phase_is_told():
    told: list[str] = []
    lines = Lines(told.append, interval_s=3600)
    for phase in ("starting", "labeling", "labeling", "stopping"):
        lines.show(dataclasses.asdict(dataclasses.replace(HALFWAY, phase=phase)))
    assert [line.split(":")[0] for line in told] == ["starting Ray and loading the model", "labeling", "stopping"]


@pytest.mark.parametrize(
    ("ends_with", "code"),
    [
        (None, EXIT_DONE),
        (RuntimeError("no space"), EXIT_FAILED),
        (KeyboardInterrupt(), EXIT_INTERRUPTED),
        (BudgetSpentError("budget.deadline (6h) is spent", {}), EXIT_BUDGET),
    ],
)
def test_watch_ends_as_the_run_has_ended(tmp_path, ends_with: BaseException | None, code: int):
    expected = contextlib.nullcontext() if ends_with is None else pytest.raises(type(ends_with))
    with expected, hold_lease(RunFolder(str(tmp_path)).lease_uri):
        if ends_with is not None:
            raise ends_with
    assert watch_run(str(tmp_path)) == code


def test_exit_codes_are_all_different():
    codes = [value for name, value in vars(exit_codes).items() if name.startswith("EXIT_")]
    assert sorted(codes) == [0, 1, 2, 3, 4, 130]
