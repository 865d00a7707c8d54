"""An engine -> its rates, each the median of some repeats. Uses what anyone can: `generate`, `open`, and the tower.

Prefill and decode are measured with texts as long as the prompts about the images, so that no vision is in them; their
time has the tokenizer's in it, which is a few hundredths of it.
"""

import asyncio
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from model.bench.machine import synchronize
from model.bench.workload import GRIDS, NoiseImages, texts_of, user_message
from model.engine import Completion, Engine, Request
from model.tiling import TiledImage

_MAX_PAIRS = 5
MAX_TILES_TIMED = {"cpu": 10, "cuda": 160}


@dataclass(frozen=True, kw_only=True)
class Rate:
    """Units per second over the repeats."""

    median: float
    lowest: float
    highest: float

    @classmethod
    def of(cls, rates: Sequence[float]) -> "Rate":
        return cls(median=statistics.median(rates), lowest=min(rates), highest=max(rates))


@dataclass(frozen=True, kw_only=True)
class PhaseTimes:
    """Wall-clock times of a batch of prompts answered with one token, and, next to it, with all their tokens."""

    num_prompt_tokens: Sequence[int]
    """Of all prompts of a run together."""
    num_later_tokens: int
    """Output tokens of a run after each prompt's first one."""
    first_token_s: Sequence[float]
    all_tokens_s: Sequence[float]

    @property
    def prefill_s(self) -> float:
        return statistics.median(self.first_token_s)

    def prefill_rate(self) -> Rate:
        return Rate.of([num / time_s for num, time_s in zip(self.num_prompt_tokens, self.first_token_s, strict=True)])

    def decode_rate(self) -> Rate:
        """Of what each whole run took beyond its neighbour that stopped at the first token."""
        pairs = zip(self.first_token_s, self.all_tokens_s, strict=True)
        return Rate.of([self.num_later_tokens / (all_s - first_s) for first_s, all_s in pairs])


class EngineBench:
    """Runs of one engine. `batch` is what the engine runs at once; inputs are drawn anew for every run."""

    def __init__(self, engine: Engine, *, batch: int, output_tokens: int, repeats: int) -> None:
        self.engine, self.batch, self.output_tokens, self.repeats = engine, batch, output_tokens, repeats
        self._images = NoiseImages(engine.processor)
        self._seed = 0

    @property
    def num_images(self) -> int:
        """Of a run through views, all of them in flight: enough that a place in the batch is never vacant for long."""
        return 2 * self.batch

    def warm_up(self, prompt_tokens: Sequence[int], prompts: Sequence[str]) -> None:
        """Every kind of work once: kernels are compiled, and memory is taken, on first use."""
        for num_tokens in prompt_tokens:
            self.answer_texts(num_tokens, self.output_tokens)
        for grid in GRIDS.values():
            self.label_images(2, grid, prompts, 2)

    def vision_tiles_per_s(self) -> Rate:
        model = self.engine.model
        (image,) = self._images.draw(1, max(GRIDS.values()))
        copies = MAX_TILES_TIMED[model.device.type] // len(image.tiles)
        tiles = np.concatenate([image.tiles] * max(1, copies))

        def encode() -> None:
            with torch.inference_mode():
                model.image_embeddings(tiles)

        encode()
        return Rate.of([len(tiles) / self._timed_s(encode) for _ in range(self.repeats)])

    def phases(self, num_prompt_tokens: int) -> PhaseTimes:
        """Times of `batch` prompts of so many tokens. Raises RuntimeError where decode cannot be told from prefill."""
        num_tokens, first_s, all_s = zip(
            *(self._first_and_all_s(num_prompt_tokens) for _ in range(self.repeats)), strict=True
        )
        num_later = self.batch * (self.output_tokens - 1)
        return PhaseTimes(
            num_prompt_tokens=num_tokens, num_later_tokens=num_later, first_token_s=first_s, all_tokens_s=all_s
        )

    def _first_and_all_s(self, num_prompt_tokens: int) -> tuple[int, float, float]:
        """A pair that others on the machine have turned around is measured again, as it is no time of decoding."""
        for _ in range(_MAX_PAIRS):
            first_s, completions = self.answer_texts(num_prompt_tokens, 1)
            all_s, _ = self.answer_texts(num_prompt_tokens, self.output_tokens)
            if all_s > first_s:
                return sum(completion.num_prompt_tokens for completion in completions), first_s, all_s
        raise RuntimeError(
            f"{self.output_tokens} output tokens took no longer than 1, {_MAX_PAIRS} times in a row: "
            "the machine is too busy, or --output-tokens too few, to tell decode from prefill"
        )

    def images_per_s(self, grid: tuple[int, int], prompts: Sequence[str]) -> Rate:
        """Whole runs, tiles to texts: every image is opened once, and all prompts are asked about it at once."""
        times_s = [self.label_images(self.num_images, grid, prompts, self.output_tokens) for _ in range(self.repeats)]
        return Rate.of([self.num_images / time_s for time_s in times_s])

    def texts(self, num_prompt_tokens: int) -> list[str]:
        """One for each place in the batch; others at every call."""
        self._seed += 1
        return texts_of(self.engine.processor, self.batch, num_prompt_tokens, seed=self._seed)

    def requests(self, num_prompt_tokens: int, num_output_tokens: int) -> list[Request]:
        return [
            Request(messages=user_message(text), max_new_tokens=num_output_tokens, ignore_eos=True)
            for text in self.texts(num_prompt_tokens)
        ]

    def answer_texts(self, num_prompt_tokens: int, num_output_tokens: int) -> tuple[float, list[Completion]]:
        """One run of a batch, and the seconds it took."""
        requests, completions = self.requests(num_prompt_tokens, num_output_tokens), list[Completion]()
        elapsed_s = self._timed_s(lambda: completions.extend(self.engine.generate(requests)))
        _check_lengths(completions, num_output_tokens)
        return elapsed_s, completions

    def label_images(
        self, num_images: int, grid: tuple[int, int], prompts: Sequence[str], num_output_tokens: int
    ) -> float:
        """One run through views, and the seconds it took."""
        images, completions = self._images.draw(num_images, grid), list[Completion]()
        coroutine = _label_all(self.engine, images, prompts, num_output_tokens)
        elapsed_s = self._timed_s(lambda: completions.extend(asyncio.run(coroutine)))
        _check_lengths(completions, num_output_tokens)
        return elapsed_s

    def _timed_s(self, work: Callable[[], None]) -> float:
        device = self.engine.model.device
        synchronize(device)
        start = time.perf_counter()
        work()
        synchronize(device)
        return time.perf_counter() - start


async def _label_all(
    engine: Engine, images: Sequence[TiledImage], prompts: Sequence[str], num_output_tokens: int
) -> list[Completion]:
    async def label(image: TiledImage) -> list[Completion]:
        async with engine.open([image]) as view:
            answers = (view.generate(text, max_new_tokens=num_output_tokens, ignore_eos=True) for text in prompts)
            return await asyncio.gather(*answers)

    return [completion for labels in await asyncio.gather(*map(label, images)) for completion in labels]


def _check_lengths(completions: Sequence[Completion], num_output_tokens: int) -> None:
    lengths = {completion.num_output_tokens for completion in completions}
    assert lengths == {num_output_tokens}, f"asked for {num_output_tokens} tokens, got {sorted(lengths)}"
