"""The tower gets full batches across images, every image gets its own embeddings, and one that fails costs itself."""

from collections.abc import Callable
from concurrent.futures import Future

import pytest
import torch

from model import vision_queue
from model.tiling import TiledImage
from model.vision_queue import VisionJob, VisionQueue
from tests import golden
from tests.model.helpers import image, load

NAME = "extra70-like"


class Outcome:
    """What became of one job."""

    def __init__(self) -> None:
        self.embeddings: torch.Tensor | None = None
        self.future: Future[None] = Future()

    @property
    def error(self) -> BaseException | None:
        return self.future.exception(timeout=0) if self.future.done() else None

    def job(self, images: list[TiledImage]) -> VisionJob:
        return VisionJob(
            images=images,
            deliver=lambda embeddings: setattr(self, "embeddings", embeddings),
            future=self.future,
        )


def tiled(*names: str) -> list[TiledImage]:
    return golden.processor(NAME).tile([image(name) for name in names])


@pytest.fixture
def batches(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Numbers of tiles that the tower was given, batches being of four."""
    monkeypatch.setattr(vision_queue, "TILES_PER_BATCH", 4)
    model, seen = load(NAME), []
    encode = model.image_embeddings

    def record(tiles) -> torch.Tensor:
        seen.append(len(tiles))
        return encode(tiles)

    monkeypatch.setattr(model, "image_embeddings", record)
    return seen


def run(queue: VisionQueue) -> None:
    while not queue.is_idle:
        queue.step()


def test_batches_are_full_across_images_and_every_image_gets_its_own(batches: list[int]):
    groups = [tiled("tiny"), tiled("wide"), tiled("odd", "tall"), tiled("tiny")]
    outcomes = [Outcome() for _ in groups]
    queue = VisionQueue(load(NAME))
    for outcome, images in zip(outcomes, groups, strict=True):
        queue.add(outcome.job(images))
    num_tiles = queue.num_waiting_tiles
    run(queue)
    assert batches == [4] * (num_tiles // 4) + [num_tiles % 4] * (num_tiles % 4 > 0)
    for outcome, images in zip(outcomes, groups, strict=True):
        prompt = golden.processor(NAME).encode(
            [{"role": "user", "content": "<image>" * len(images)}, {"role": "assistant", "content": ""}], images
        )
        with torch.inference_mode():
            alone = load(NAME).image_sequence(prompt.tiles, prompt.grids)
        torch.testing.assert_close(outcome.embeddings, alone, atol=1e-5, rtol=1e-5)


def test_image_of_more_tiles_than_a_batch_is_encoded_in_several(batches: list[int]):
    (picture,) = tiled("wide")
    assert len(picture.tiles) > 4
    outcome, queue = Outcome(), VisionQueue(load(NAME))
    queue.add(outcome.job([picture]))
    run(queue)
    assert sum(batches) == len(picture.tiles)
    assert outcome.embeddings is not None


def test_image_that_nobody_wants_any_more_is_not_encoded(batches: list[int]):
    outcome, queue = Outcome(), VisionQueue(load(NAME))
    queue.add(outcome.job(tiled("tiny")))
    assert outcome.future.cancel()
    assert queue.step() == 0
    assert queue.is_idle
    assert batches == []


@pytest.mark.parametrize("order", [[0, 1, 2], [1, 0, 2], [1, 2, 0]], ids=str)
def test_image_that_cannot_be_encoded_fails_alone(
    order: list[int], batches: list[int], monkeypatch: pytest.MonkeyPatch
):
    """The second one's tiles are of one level that the tower is made to refuse."""
    images = [tiled("tiny"), tiled("tiny"), tiled("odd")]
    images[1][0].tiles[:] = 77
    refuse_level(monkeypatch, lambda tiles: (tiles == 77).all(axis=(1, 2, 3)).any())
    outcomes, queue = [Outcome() for _ in images], VisionQueue(load(NAME))
    for index in order:
        queue.add(outcomes[index].job(images[index]))
    run(queue)
    assert isinstance(outcomes[1].error, MemoryError)
    assert outcomes[1].embeddings is None
    for index in (0, 2):
        assert outcomes[index].error is None
        assert outcomes[index].embeddings is not None


def refuse_level(monkeypatch: pytest.MonkeyPatch, is_refused: Callable) -> None:
    model = load(NAME)
    encode = model.image_embeddings

    def picky(tiles) -> torch.Tensor:
        if is_refused(tiles):
            raise MemoryError("too much")
        return encode(tiles)

    monkeypatch.setattr(model, "image_embeddings", picky)


def test_images_that_wait_fail_with_the_engine():
    outcome, queue = Outcome(), VisionQueue(load(NAME))
    queue.add(outcome.job(tiled("tiny")))
    queue.fail_all(RuntimeError("the engine was closed"))
    assert str(outcome.error) == "the engine was closed"
    assert queue.is_idle
