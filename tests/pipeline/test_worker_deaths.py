"""Label actors that died, counted by their reasons."""

import pickle

import pytest

from pipeline.worker_deaths import MAX_REASON_CHARS, UNTOLD, Actor, WorkerDeaths, sentence
from tests.pipeline.outputs import files_below

NO_RANK = "rank 1 was ended by signal 9"


@pytest.fixture(params=["local", "s3"])
def uri(request, tmp_path) -> str:
    return (request.getfixturevalue("bucket") if request.param == "s3" else str(tmp_path)) + "/in_hand"


def actor(uri: str, name: str, *, is_successor: bool, run: int = 1) -> WorkerDeaths:
    """As it arrives in the actor."""
    made = WorkerDeaths(uri, run, this_actor=_Here(Actor(name=name, is_successor=is_successor)))
    return pickle.loads(pickle.dumps(made))


class _Here:
    def __init__(self, who: Actor) -> None:
        self.who = who

    def __call__(self) -> Actor:
        return self.who


def test_run_in_which_nobody_dies_notes_nothing(uri: str):
    actor(uri, "a", is_successor=False).start()
    assert files_below(uri) == []
    assert WorkerDeaths(uri, 1).by_reason() == {}


def test_deaths_have_the_reasons_that_were_told_and_those_of_others_are_counted(uri: str):
    for _ in range(2):
        actor(uri, "a", is_successor=False).end_because_of(NO_RANK)
        actor(uri, "a", is_successor=True).start()
    actor(uri, "b", is_successor=True).start()
    actor(uri, "c", is_successor=True).start()
    actor(uri, "c", is_successor=True).end_because_of("rank 0 was ended by signal 9")
    assert WorkerDeaths(uri, 1).by_reason() == {NO_RANK: 2, "rank 0 was ended by signal 9": 1, UNTOLD: 1}


def test_reasons_that_differ_in_a_process_number_are_one(uri: str):
    for process in (17, 18):
        actor(uri, "a", is_successor=False).end_because_of(f"rank 1 (process {process}) was ended by signal 9")
    assert WorkerDeaths(uri, 1).by_reason() == {NO_RANK: 2}


def test_reason_is_short_and_one_line(uri: str):
    actor(uri, "a", is_successor=False).end_because_of("rank 0 gave up:\n" + 1000 * "x")
    ((reason, _),) = WorkerDeaths(uri, 1).by_reason().items()
    assert reason.startswith("rank 0 gave up: xxx")
    assert len(reason) == MAX_REASON_CHARS


@pytest.mark.parametrize(
    ("by_reason", "told"),
    [
        ({}, ""),
        ({NO_RANK: 1}, f"1 label actor died: {NO_RANK} (1)"),
        ({NO_RANK: 2, UNTOLD: 1}, f"3 label actors died: {NO_RANK} (2); {UNTOLD} (1)"),
    ],
)
def test_deaths_are_one_sentence(by_reason: dict[str, int], told: str):
    assert sentence(by_reason) == told


def test_deaths_of_another_run_do_not_count(uri: str):
    actor(uri, "a", is_successor=True, run=1).start()
    assert WorkerDeaths(uri, 2).by_reason() == {}


def test_reason_is_written_without_credentials(uri: str):
    actor(uri, "a", is_successor=False).end_because_of("cannot read s3://user:secret@host/x")
    ((reason, _),) = WorkerDeaths(uri, 1).by_reason().items()
    assert "secret" not in reason


def test_store_that_does_not_take_the_note_does_not_keep_an_actor_from_its_work(tmp_path, capsys):
    (tmp_path / "in_hand").write_text("a file where a folder should be")
    actor(str(tmp_path / "in_hand"), "a", is_successor=True).start()
    assert "is not noted" in capsys.readouterr().err
