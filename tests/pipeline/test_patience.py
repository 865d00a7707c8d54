import itertools
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline import patience as patience_module
from pipeline.patience import PATIENCE_S, PATIENCE_VARIABLE, Patience, StoreHealth
from pipeline.storage import StorageError
from schemas.errors import ErrorKind
from tests.pipeline.counting import counting

AWAY = StorageError(ErrorKind.STORE_UNAVAILABLE, "s3://bucket/a: away")
SHORT = Patience(store_s=0.3)
LONG = Patience(store_s=90, object_s=0.05)


class Requests:
    """What a store answers to one request: `outcomes` in turn, the last one for ever."""

    def __init__(self, *outcomes):
        self.num_asked = 0
        self._outcomes = itertools.chain(outcomes, itertools.repeat(outcomes[-1]))

    def __call__(self):
        self.num_asked += 1
        outcome = next(self._outcomes)
        if isinstance(outcome, StorageError):
            raise outcome
        return outcome


def ask(health, request, *, key="get a", patience=SHORT, probe=None):
    return health.ask(request, key=key, patience=patience, probe=probe or Requests(AWAY))


def failure(health, request, **options):
    with pytest.raises(StorageError) as raised:
        ask(health, request, **options)
    return raised.value


def test_request_is_asked_until_it_is_answered():
    request = Requests(AWAY, AWAY, AWAY, "answer")
    assert ask(StoreHealth(), request) == "answer"
    assert request.num_asked == 4


@pytest.mark.parametrize("kind", [kind for kind in ErrorKind if kind.permanent])
def test_permanent_failure_is_asked_once_and_handed_on_as_it_is(kind):
    request = Requests(StorageError(kind, "s3://bucket/a: no"))
    assert str(failure(StoreHealth(), request)) == "s3://bucket/a: no"
    assert request.num_asked == 1


def test_without_patience_everything_is_asked_once():
    request = Requests(AWAY)
    assert str(failure(StoreHealth(), request, patience=Patience(store_s=0))) == str(AWAY)
    assert request.num_asked == 1


def test_failure_after_a_whole_patience_says_how_often_was_asked():
    request = Requests(AWAY)
    error = failure(StoreHealth(), request)
    assert error.kind == ErrorKind.STORE_UNAVAILABLE
    assert str(error).startswith(f"{AWAY} (asked {request.num_asked} times in ")
    assert request.num_asked > 3


def test_store_that_was_given_up_is_asked_twice_until_it_answers_somebody():
    health = StoreHealth()
    failure(health, Requests(AWAY))
    later = Requests(AWAY)
    failure(health, later, key="get b")
    assert later.num_asked == 2
    ask(health, Requests("answer"), key="get c")
    patient_again = Requests(AWAY, AWAY, AWAY, "answer")
    assert ask(health, patient_again, key="get b") == "answer"


def test_an_answer_that_says_no_is_an_answer():
    health = StoreHealth()
    failure(health, Requests(AWAY))
    failure(health, Requests(StorageError(ErrorKind.MISSING, "s3://bucket/b: no such object")), key="get b")
    assert ask(health, Requests(AWAY, AWAY, AWAY, "answer")) == "answer"


def test_a_name_refused_on_this_side_says_nothing_about_the_store():
    health = StoreHealth()
    failure(health, Requests(AWAY))
    failure(health, Requests(StorageError(ErrorKind.UNSUPPORTED_URI, "s3://B/b: impossible")), key="get b")
    later = Requests(AWAY)
    failure(health, later)
    assert later.num_asked == 2


def test_a_store_given_up_in_haste_is_not_given_up_for_the_patient():
    health = StoreHealth()
    failure(health, Requests(AWAY), patience=Patience(store_s=0.05))
    patient = Requests(AWAY, AWAY, AWAY, "answer")
    assert ask(health, patient) == "answer"


def test_threads_that_find_the_store_dead_share_one_patience():
    health = StoreHealth()
    requests = [Requests(AWAY) for _ in range(400)]
    with ThreadPoolExecutor(8) as threads:
        list(threads.map(lambda number: failure(health, requests[number], key=f"get {number}"), range(400)))
    assert sum(request.num_asked > 2 for request in requests) <= 8
    assert all(request.num_asked >= 2 for request in requests)


def test_object_that_fails_while_the_store_answers_is_given_up_without_the_patience_for_the_store():
    assert "asked 6 times" in str(failure(StoreHealth(), Requests(AWAY), patience=LONG, probe=Requests("here")))


def test_object_that_was_given_up_is_asked_twice_until_it_is_answered():
    health, here = StoreHealth(), Requests("here")
    failure(health, Requests(AWAY), patience=LONG, probe=here)
    later = Requests(AWAY)
    failure(health, later, patience=LONG, probe=here)
    assert later.num_asked == 2
    other = Requests(AWAY, AWAY, "answer")
    assert ask(health, other, key="get b", patience=LONG, probe=here) == "answer"
    ask(health, Requests("answer"), patience=LONG, probe=here)
    assert ask(health, Requests(AWAY, AWAY, "answer"), patience=LONG, probe=here) == "answer"


def test_object_is_not_blamed_while_the_store_answers_nobody():
    away_for_a_while = Requests(*[AWAY] * 9, "answer")
    assert ask(StoreHealth(), away_for_a_while, patience=Patience(store_s=20, object_s=0.02)) == "answer"


def test_object_is_not_blamed_where_most_others_fail_too():
    health, stop = StoreHealth(), threading.Event()

    def fail_until_told():
        while not stop.wait(0.005):
            failure(health, Requests(AWAY), key="get other", patience=Patience(store_s=0))

    with ThreadPoolExecutor(4) as threads:
        others = [threads.submit(fail_until_told) for _ in range(4)]
        try:
            request = Requests(*[AWAY] * 9, "answer")
            patience = Patience(store_s=20, object_s=0.02)
            assert ask(health, request, patience=patience, probe=Requests("here")) == "answer"
        finally:
            stop.set()
    assert [other.exception() for other in others] == [None] * 4


def test_waits_grow_and_are_spread_and_scale_with_the_patience():
    patience = Patience(store_s=300)
    assert all(0.05 <= patience.wait_s(1) <= 0.15 for _ in range(50))
    assert all(5 <= patience.wait_s(100) <= 15 for _ in range(50))
    assert len({patience.wait_s(3) for _ in range(50)}) > 1
    assert Patience(store_s=3).wait_s(100) <= 0.15


def test_environment_sets_the_patience(monkeypatch):
    monkeypatch.delenv(PATIENCE_VARIABLE, raising=False)
    assert Patience.from_environment() == Patience(store_s=PATIENCE_S)
    assert Patience.from_environment(at_most_s=10) == Patience(store_s=10)
    monkeypatch.setenv(PATIENCE_VARIABLE, "5")
    assert Patience.from_environment(at_most_s=10) == Patience(store_s=5)
    assert Patience.among_others() == Patience(store_s=5, object_s=0.5)


@pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
def test_patience_that_is_no_number_of_seconds_is_refused_by_name(monkeypatch, text):
    monkeypatch.setenv(PATIENCE_VARIABLE, text)
    with pytest.raises(ValueError, match=rf"{PATIENCE_VARIABLE} is '{text}'; set it to a number of seconds"):
        Patience.from_environment()


def test_every_request_that_is_asked_again_is_counted(monkeypatch):
    told = counting(monkeypatch, patience_module)
    ask(StoreHealth(), Requests(AWAY, AWAY, "answer"))
    ask(StoreHealth(), Requests("answer"))
    failure(StoreHealth(), Requests(AWAY), patience=Patience(store_s=0))
    assert told.of("store_retries") == {(): 2}
