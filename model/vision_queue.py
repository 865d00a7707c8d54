"""Tiles of many images -> embeddings of each prompt's images, in batches that are full wherever enough tiles wait.

A batch takes tiles in the order of arrival, of as many images as it holds, and an image may lie in two. Knows nothing
of requests. Shapes: N tiles, M image tokens of a tile, D language width.
"""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from model.deepseek_vl2 import TILES_PER_BATCH, DeepseekVL2
from model.sequence import fail
from model.tiling import TiledImage


@dataclass(kw_only=True, eq=False)
class VisionJob:
    """The images of one prompt or view.

    deliver: gets their embeddings at the prompt's image positions [image positions, D]. future: of whoever waits; it
    gets an error instead, and once it is cancelled the job is dropped at the next batch.
    """

    images: Sequence[TiledImage]
    deliver: Callable[[Tensor], None]
    future: Future[Any]
    done_NMD: list[Tensor] = field(default_factory=list)
    num_taken: int = 0
    """Tiles that were encoded or are in a batch."""

    @property
    def num_tiles(self) -> int:
        return sum(len(image.tiles) for image in self.images)

    def take(self, num_tiles: int) -> np.ndarray:
        """The next tiles, at most so many."""
        parts, skip = [], self.num_taken
        for image in self.images:
            part = image.tiles[skip : skip + num_tiles]
            skip = max(0, skip - len(image.tiles))
            num_tiles -= len(part)
            parts.append(part)
        taken = np.concatenate(parts)
        self.num_taken += len(taken)
        return taken


class VisionQueue:
    def __init__(self, model: DeepseekVL2) -> None:
        self.model = model
        self._jobs: deque[VisionJob] = deque()

    @property
    def num_waiting_tiles(self) -> int:
        return sum(job.num_tiles - job.num_taken for job in self._jobs)

    @property
    def is_idle(self) -> bool:
        return not self._jobs

    @property
    def has_full_batch(self) -> bool:
        return self.num_waiting_tiles >= TILES_PER_BATCH

    def add(self, job: VisionJob) -> None:
        self._jobs.append(job)

    def fail_all(self, error: BaseException) -> None:
        while self._jobs:
            fail(self._jobs.popleft().future, error)

    @torch.inference_mode()
    def step(self) -> int:
        """Encodes one batch and delivers what it completed; returns the number of its tiles."""
        self._jobs = deque(job for job in self._jobs if not job.future.cancelled())
        parts = self._next_batch()
        if not parts:
            return 0
        tiles = np.concatenate([tiles for _, tiles in parts])
        try:
            encoded_NMD = self.model.image_embeddings(tiles)
        except Exception as error:  # noqa: BLE001 - handed to whoever waits
            self._blame(parts, error)
            return 0
        for (job, _), part in zip(parts, encoded_NMD.split([len(one) for _, one in parts]), strict=True):
            job.done_NMD.append(part)
        self._deliver()
        if encoded_NMD.is_cuda:
            torch.cuda.synchronize(encoded_NMD.device)  # so that the time of a batch is its own
        return len(tiles)

    def _next_batch(self) -> list[tuple[VisionJob, np.ndarray]]:
        parts, room = [], TILES_PER_BATCH
        for job in self._jobs:
            if room == 0:
                break
            tiles = job.take(room)
            parts.append((job, tiles))
            room -= len(tiles)
        return parts

    def _deliver(self) -> None:
        while self._jobs and sum(len(part) for part in self._jobs[0].done_NMD) == self._jobs[0].num_tiles:
            job = self._jobs.popleft()
            try:
                sequence = self.model.lay_out(torch.cat(job.done_NMD), [image.grid for image in job.images])
            except Exception as error:  # noqa: BLE001 - this job's own images; the others go on
                fail(job.future, error)
            else:
                job.deliver(sequence)

    def _blame(self, parts: Sequence[tuple[VisionJob, np.ndarray]], error: BaseException) -> None:
        """A batch failed: one image alone fails; of several each is tried again by itself, so that one costs itself."""
        if len(parts) == 1:
            job = parts[0][0]
            self._jobs.remove(job)
            fail(job.future, error)
            return
        for job, _ in parts:
            alone = VisionQueue(self.model)
            alone.add(VisionJob(images=job.images, deliver=job.deliver, future=job.future))
            self._jobs.remove(job)
            while not alone.is_idle:
                alone.step()
