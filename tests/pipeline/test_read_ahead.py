import itertools
import threading

import pytest

from pipeline.read_ahead import in_order


def test_answers_come_in_order_whatever_finishes_first():
    last_may_go = threading.Event()

    def ask(number):
        if number == 0:
            assert last_may_go.wait(10)
        if number == 3:
            last_may_go.set()
        return -number

    assert list(in_order(ask, range(4), num_threads=4, items_per_task=1)) == [0, -1, -2, -3]


@pytest.mark.parametrize("items_per_task", [1, 3])
def test_little_is_asked_ahead_of_the_caller(items_per_task):
    asked = []
    answers = in_order(asked.append, itertools.count(), num_threads=2, items_per_task=items_per_task)
    next(answers)
    answers.close()
    assert len(asked) <= 2 * 2 * items_per_task


def test_error_comes_in_its_turn_and_nothing_is_asked_after_it():
    asked = []

    def ask(number):
        asked.append(number)
        return 1 // (number - 5)

    answers = in_order(ask, itertools.count(), num_threads=2, items_per_task=1)
    assert len(list(itertools.islice(answers, 5))) == 5
    with pytest.raises(ZeroDivisionError):
        next(answers)
    assert max(asked) <= 5 + 4
    assert next(answers, None) is None


def test_nothing_asked_is_nothing_answered():
    assert list(in_order(str, [])) == []
