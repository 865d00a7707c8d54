"""Two runs on one output: the second one is refused, unless the first one is dead."""

import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict, replace

import pytest

from pipeline import lease as lease_module
from pipeline.lease import HELD, LeaseLostError, LeaseRecord, OutputInUseError, hold_lease, read_lease
from pipeline.storage import join_uri, open_store

HOLDER = """
import sys, time
from pipeline.lease import hold_lease
with hold_lease(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(params=["local", "s3"])
def lease_uri(request, tmp_path):
    return (request.getfixturevalue("bucket") if request.param == "s3" else str(tmp_path)) + "/out/_run/lease"


def elsewhere(number: int = 1, **fields) -> LeaseRecord:
    """The lease of a process of another machine."""
    names = {"owner": "them", "host": "node-7", "process": "node-7 boot space 1", "pid": 1}
    times = {"started_at": "2026-01-01T00:00:00+00:00", "renewed_at": "2026-01-01T00:00:00+00:00"}
    return LeaseRecord(number=number, **{**names, **times, **fields})


def put(lease_uri: str, record: LeaseRecord) -> None:
    uri = join_uri(lease_uri, f"{record.number:06d}.json")
    open_store(uri).put(uri, json.dumps(asdict(record)).encode())


def test_second_run_is_refused_while_the_first_one_lives_and_told_which_it_is(lease_uri):
    with hold_lease(lease_uri), pytest.raises(OutputInUseError, match=f"process {os.getpid()} on "):
        hold_lease(lease_uri).__enter__()


def test_each_run_has_the_next_number_and_leaves_its_own_lease_alone(lease_uri):
    for number in (1, 2, 3):
        with hold_lease(lease_uri) as lease:
            assert lease.number == number
        assert [info.uri[-11:] for info in open_store(lease_uri).list(lease_uri)] == [f"{number:06d}.json"]


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (None, "done", ""),
        (KeyboardInterrupt(), "interrupted", ""),
        (ValueError("no such\nbucket"), "failed", "no such bucket"),
        (RuntimeError(), "failed", "RuntimeError"),
    ],
)
def test_lease_says_how_its_run_ended(lease_uri, error, state, message):
    with pytest.raises(type(error)) if error else hold_lease(lease_uri):
        if error:
            with hold_lease(lease_uri):
                raise error
    ended = read_lease(lease_uri)
    assert (ended.state, ended.message) == (state, message)


def test_run_that_was_killed_on_this_machine_holds_nothing(lease_uri):
    holder = subprocess.Popen([sys.executable, "-c", HOLDER, lease_uri], stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(OutputInUseError, match=f"process {holder.pid} "):
            hold_lease(lease_uri).__enter__()
    finally:
        holder.send_signal(signal.SIGKILL)
    while read_state(holder.pid) not in ("Z", ""):  # a process that is dead and not yet waited for is dead
        time.sleep(0.01)
    with hold_lease(lease_uri) as lease:
        assert lease.number == 2
    holder.communicate()


def read_state(pid: int) -> str:
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0]
    except OSError:
        return ""


def test_silent_run_of_another_machine_is_watched_and_then_replaced(lease_uri):
    put(lease_uri, elsewhere(5))
    said: list[str] = []
    with hold_lease(lease_uri, say=said.append, watch_s=0.2) as lease:
        assert lease.number == 6
    (sentence,) = said
    assert "process 1 on node-7" in sentence
    assert "waiting" in sentence


def test_run_of_another_machine_that_renews_is_left_alone_however_wrong_its_clock(lease_uri):
    record, over = elsewhere(), threading.Event()
    put(lease_uri, record)

    def renew():
        for renewals in range(1, 1000):
            put(lease_uri, replace(record, renewals=renewals))
            if over.wait(0.02):
                return

    renewer = threading.Thread(target=renew)
    renewer.start()
    try:
        with pytest.raises(OutputInUseError, match="node-7"):
            hold_lease(lease_uri, watch_s=30).__enter__()
    finally:
        over.set()
        renewer.join()


def run_until_replaced(lease_uri) -> None:
    with hold_lease(lease_uri) as lease:
        put(lease_uri, elsewhere(2))
        while True:
            time.sleep(0.01)
            lease.check()


def test_run_that_was_replaced_finds_out_at_its_next_renewal_and_writes_no_lease_again(lease_uri, monkeypatch):
    monkeypatch.setattr(lease_module, "RENEW_S", 0.05)
    with pytest.raises(LeaseLostError, match="process 1 on node-7"):
        run_until_replaced(lease_uri)
    assert read_lease(lease_uri).owner == "them"
    assert read_lease(lease_uri).state == HELD


def test_lease_says_how_far_its_run_is(lease_uri, monkeypatch):
    monkeypatch.setattr(lease_module, "RENEW_S", 0.05)
    with hold_lease(lease_uri) as lease:
        lease.report(lambda: {"num_images_done": 7})
        while not read_lease(lease_uri).progress:
            time.sleep(0.01)
        assert read_lease(lease_uri).progress == {"num_images_done": 7}
        assert read_lease(lease_uri).renewals > 0


def test_of_two_runs_that_start_together_one_gets_the_output(lease_uri):
    outcomes: list[object] = []
    begun, over = threading.Barrier(4), threading.Event()

    def start():
        begun.wait()
        try:
            with hold_lease(lease_uri) as lease:
                outcomes.append(lease.number)
                over.wait(60)
        except OutputInUseError as error:
            outcomes.append(str(error))

    runs = [threading.Thread(target=start) for _ in range(4)]
    for run in runs:
        run.start()
    while len(outcomes) < 4:
        time.sleep(0.01)
    over.set()
    for run in runs:
        run.join()
    assert [outcome for outcome in outcomes if isinstance(outcome, int)] == [1]


def test_store_without_conditional_puts_is_named_and_the_lease_looked_at_once_more(tmp_path, monkeypatch):
    store = type(open_store(str(tmp_path)))
    monkeypatch.setattr(store, "has_conditional_puts", lambda self, folder_uri: False)
    monkeypatch.setattr(lease_module, "SETTLE_S", 0.01)
    said: list[str] = []
    with hold_lease(str(tmp_path / "lease"), say=said.append) as lease:
        assert lease.number == 1
    assert ["no conditional puts" in sentence for sentence in said] == [True]
    # Another run that looked before this one had written, and wrote after it.
    monkeypatch.setattr(
        store, "put_if_absent", lambda self, uri, data: put(uri.rpartition("/")[0], elsewhere(2)) or True
    )
    with pytest.raises(OutputInUseError, match="same moment"):
        hold_lease(str(tmp_path / "lease")).__enter__()
