import os
import signal
import threading
import time

import pytest

from pipeline.stopping import stop_on_signal


def send(signum: int) -> None:
    os.kill(os.getpid(), signum)


def block_until(grace_s: float, *signals: int, on_stop=lambda: None) -> None:
    with stop_on_signal(on_stop, grace_s=grace_s):
        for signum in signals:
            send(signum)
        time.sleep(60)


@pytest.mark.parametrize("signum", [signal.SIGINT, signal.SIGTERM])
def test_first_signal_asks_and_the_block_goes_on_to_its_end(signum):
    asked = threading.Event()
    with stop_on_signal(asked.set, grace_s=60) as stopping:
        assert not stopping.requested.is_set()
        send(signum)
        assert asked.wait(60)
        assert stopping.requested.is_set()


def test_second_signal_ends_the_block():
    with pytest.raises(KeyboardInterrupt):
        block_until(60, signal.SIGTERM, signal.SIGINT)


def test_end_of_the_grace_period_ends_the_block():
    with pytest.raises(KeyboardInterrupt):
        block_until(0.05, signal.SIGTERM)


def test_end_of_the_grace_period_is_said_again_to_a_block_that_missed_it(monkeypatch):
    sent = []
    truly_send = signal.pthread_kill

    def lose_the_first(thread: int, signum: int) -> None:
        sent.append(signum)
        if len(sent) > 1:
            truly_send(thread, signum)

    monkeypatch.setattr(signal, "pthread_kill", lose_the_first)
    with pytest.raises(KeyboardInterrupt):
        block_until(0.05, signal.SIGTERM)
    assert sent == [signal.SIGTERM, signal.SIGTERM]


def test_workers_that_cannot_be_told_are_not_waited_for():
    def fail() -> None:
        raise OSError("no cluster")

    with pytest.raises(KeyboardInterrupt):
        block_until(60, signal.SIGTERM, on_stop=fail)


def test_block_that_is_not_asked_leaves_everything_as_it_was():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), threading.active_count()
    with stop_on_signal(lambda: pytest.fail("nobody asked"), grace_s=0):
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT), threading.active_count()) == before


def test_outside_of_the_main_thread_signals_are_left_to_others():
    before, seen = signal.getsignal(signal.SIGTERM), []

    def block() -> None:
        with stop_on_signal(lambda: None, grace_s=0) as stopping:
            seen.append((signal.getsignal(signal.SIGTERM), stopping.requested.is_set()))

    thread = threading.Thread(target=block)
    thread.start()
    thread.join()
    assert seen == [(before, False)]
