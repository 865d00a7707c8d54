"""No process of an engine of several ranks outlives it, however it ends; and whoever waits is told."""

import asyncio
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from model import checkpoint
from model.engine import Engine, EngineConfig, EngineDiedError
from model.rank_handle import RankHandle
from model.rank_messages import RankSettings
from tests import golden
from tests.model.helpers import ask, image, ranked

SETTLED_S = 10
ROOT = Path(__file__).parents[2]


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def all_gone(pids: list[int]) -> bool:
    end = time.monotonic() + SETTLED_S
    while any(map(is_running, pids)) and time.monotonic() < end:
        time.sleep(0.05)
    return not any(map(is_running, pids))


@pytest.mark.parametrize("victim", [0, 1, 2])
def test_killed_rank_ends_the_others_and_whoever_waits_is_told(victim):
    with ranked("base-like", 3) as engine:
        pids = engine.pids

        async def ask_while_it_dies() -> list[object]:
            async with engine.open([image("wide")]) as view:
                long = [view.generate("Go on", max_new_tokens=400, ignore_eos=True) for _ in range(3)]
                waiting = asyncio.gather(*long, return_exceptions=True)
                await asyncio.sleep(0.2)
                os.kill(pids[victim], signal.SIGKILL)
                return await waiting

        errors = asyncio.run(ask_while_it_dies())
        assert [type(error) for error in errors] == [EngineDiedError] * 3
        assert f"rank {victim}" in str(errors[0])
        assert "signal 9" in str(errors[0])
        assert all_gone(pids)
        with pytest.raises(EngineDiedError, match=f"rank {victim}"):
            engine.generate([ask("Hi")])


def test_ranks_end_with_the_process_that_has_started_them():
    script = (
        "import sys, time\nfrom model.engine import Engine, EngineConfig\n"
        "engine = Engine.load(sys.argv[1], config=EngineConfig(expert_ranks=2))\n"
        "print(*engine.pids, flush=True)\ntime.sleep(60)\n"
    )
    command = [sys.executable, "-c", script, str(golden.checkpoint_folder("base-like"))]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(pid) for pid in process.stdout.readline().split()]
        assert len(pids) == 2
        process.kill()
    assert all_gone(pids)


def test_engine_that_is_closed_or_dropped_leaves_no_process():
    engine = ranked("base-like", 2)
    pids = engine.pids
    engine.close()
    assert all_gone(pids)
    dropped = ranked("base-like", 2)
    pids = dropped.pids
    del dropped
    assert all_gone(pids)


def test_checkpoint_that_cannot_be_loaded_is_one_sentence_and_leaves_no_process(tmp_path):
    folder = golden.checkpoint_folder("base-like")
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    index = (
        json.loads((tmp_path / checkpoint.INDEX_FILE).read_text())
        if (tmp_path / checkpoint.INDEX_FILE).exists()
        else None
    )
    shard = sorted({*index["weight_map"].values()})[0] if index else checkpoint.SINGLE_FILE
    (tmp_path / shard).write_bytes(b"damaged")
    with pytest.raises(ValueError, match=r"rank [01]: .*cannot be read"):
        Engine.load(tmp_path, config=EngineConfig(expert_ranks=2))


def test_rank_that_dies_while_it_starts_is_told_at_once_and_takes_the_others_along(monkeypatch):
    started = []

    class Killed(RankHandle):
        def __init__(self, settings: RankSettings, **how: Any) -> None:
            super().__init__(settings, **how)
            started.append(self.pid)
            if settings.share.rank == 1:
                self.kill()

    monkeypatch.setattr("model.ranked_engine.RankHandle", Killed)
    with pytest.raises(EngineDiedError, match=r"rank 1 .* signal 9"):
        ranked("base-like", 2)
    assert all_gone(started)


def test_rank_that_hangs_is_given_up_by_the_others_and_they_say_why():
    with ranked("base-like", 2, rank_timeout_s=10) as engine:
        pids = engine.pids
        engine.generate([ask("Hi")])

        async def ask_while_one_is_stopped() -> object:
            async with engine.open([image("wide")]) as view:
                waiting = asyncio.create_task(view.generate("Go on", max_new_tokens=400, ignore_eos=True))
                await asyncio.sleep(0.2)
                os.kill(pids[1], signal.SIGSTOP)
                return (await asyncio.gather(waiting, return_exceptions=True))[0]

        error = asyncio.run(ask_while_one_is_stopped())
        assert isinstance(error, EngineDiedError)
        assert "rank 0" in str(error)
        assert "gave up: " in str(error)
        assert "Timed out" in str(error)
        assert all_gone(pids)
