"""Deaths are those of child processes."""

import asyncio
import os
import pickle

import numpy as np
import pytest

from model.engine_stats import EngineStats
from pipeline.engine_work import EngineWork
from pipeline.in_hand import InHand
from pipeline.label import LabelImage, SharedUse
from schemas.errors import ErrorKind
from schemas.rows import ImageRow, rows_of, to_columns
from tests.pipeline.outputs import files_below
from tests.pipeline.rows import one_image_row


@pytest.fixture(params=["local", "s3"])
def folder_uri(request, tmp_path):
    return (request.getfixturevalue("bucket") if request.param == "s3" else str(tmp_path)) + "/in_hand"


def row(name: str) -> ImageRow:
    return one_image_row(sample_id=name, image_uri=f"{name}.jpg", version="1", manifest_shard="s", recipes=("ocr",))


ROWS = [row("a"), row("b"), row("c")]


def die_with(manager) -> None:
    child = os.fork()
    if child == 0:
        try:
            manager.__enter__()
        finally:
            os._exit(9)
    os.waitpid(child, 0)


def test_block_in_hand_is_written_down_and_forgotten_when_it_ends(folder_uri):
    with InHand(folder_uri, 3).block(ROWS) as died_before:
        assert not died_before
        (name,) = files_below(folder_uri)
        assert name.startswith("000003/block-")
    assert files_below(folder_uri) == []


def test_error_of_the_work_is_no_death(folder_uri):
    in_hand = InHand(folder_uri, 1)
    with pytest.raises(ValueError, match="from the work"), in_hand.block(ROWS):
        raise ValueError("from the work")
    with in_hand.block(ROWS) as died_before:
        assert not died_before


def test_block_whose_worker_died_is_taken_row_by_row_until_it_ends(folder_uri):
    die_with(InHand(folder_uri, 1).block(ROWS))
    successor = pickle.loads(pickle.dumps(InHand(folder_uri, 1)))
    with successor.block(ROWS[::-1]) as died_before:
        assert died_before
    with successor.block(ROWS[:2]) as died_before:
        assert not died_before, "it is another block"
    with successor.block(ROWS) as died_before:
        assert not died_before
    assert files_below(folder_uri) == []


def test_row_is_given_up_after_two_deaths_alone(folder_uri):
    in_hand = InHand(folder_uri, 1)
    for _ in range(2):
        with in_hand.alone(ROWS[1]) as reason:
            assert reason is None, "this time it lived"
        die_with(in_hand.alone(ROWS[0]))
    with in_hand.alone(ROWS[0]) as reason:
        assert reason.kind is ErrorKind.WORKER_DIED
        assert "2 workers died" in reason.message
    with in_hand.alone(ROWS[1]) as reason:
        assert reason is None


def test_deaths_of_an_earlier_run_do_not_count(folder_uri):
    for _ in range(2):
        die_with(InHand(folder_uri, 1).alone(ROWS[0]))
    with InHand(folder_uri, 2).alone(ROWS[0]) as reason:
        assert reason is None


def test_stage_labels_the_rows_of_such_a_block_one_at_a_time_with_nothing_beside_them(tmp_path):
    in_hand = InHand(str(tmp_path), 1)
    die_with(in_hand.block(ROWS))
    for _ in range(2):
        die_with(in_hand.alone(ROWS[1]))
    stage = StageThatCounts(in_hand)
    suspects, others = (
        to_columns(ROWS, tiles=[np.empty(0)] * 3),
        to_columns([row("d"), row("e")], tiles=[np.empty(0)] * 2),
    )

    async def both():
        return await asyncio.gather(*(collect(stage(block)) for block in (suspects, others, others)))

    (of_suspects, *_) = asyncio.run(both())
    assert [one.error and one.error.kind for one in of_suspects] == [None, ErrorKind.WORKER_DIED, None]
    assert stage.beside == {"a": 1, "c": 1, "d": 4, "e": 4}


async def collect(blocks) -> list[ImageRow]:
    return [one async for block in blocks for one in rows_of(block)]


class StageThatCounts(LabelImage):
    """The real stage around an engine that notes how many images it has at the same time at most."""

    def __init__(self, in_hand: InHand) -> None:
        self._in_hand, self._engine_use, self._num, self.beside = in_hand, SharedUse(), 0, {}
        self._engine_work = EngineWork()

    def stats(self) -> EngineStats:
        return EngineStats()

    async def label(self, row, tiles):
        self._num += 1
        for _ in range(150):  # long enough for the others to have come as well
            self.beside[row.sample_id] = max(self.beside.get(row.sample_id, 0), self._num)
            await asyncio.sleep(0.001)
        self._num -= 1
        return row
