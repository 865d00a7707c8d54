"""Kills for a quarter of an hour (`make soak`; LABELMILL_SOAK_S sets another length): new seeds until time is over."""

import os
import time
from collections import Counter

import pytest

from tests.faults.disturbed import DRIVER, NODE, WORKERS, Kills, assert_same_dataset, run_until_done
from tests.faults.test_deaths import job_at, source, undisturbed

pytestmark = pytest.mark.soak

__all__ = ["source", "undisturbed"]


def test_no_row_is_lost_however_long_processes_are_killed(tmp_path, source, undisturbed):
    until = time.monotonic() + float(os.environ.get("LABELMILL_SOAK_S", "900"))
    seed, killed = int(os.environ.get("LABELMILL_SOAK_SEED", str(time.time_ns() % 10**6))), Counter()
    while time.monotonic() < until:
        seed += 1
        print(f"seed {seed}: killed so far {dict(killed)}", flush=True)
        kills = Kills(seed=seed, num_left=12, mean_pause_s=1.5, kinds=(*WORKERS, *WORKERS, DRIVER, NODE))
        folder = tmp_path / str(seed)
        run_until_done(job_at(folder, source, folder / "out"), kills)
        assert_same_dataset(str(folder / "out"), undisturbed)
        killed += kills.by_kind
    assert killed.total() > 0
