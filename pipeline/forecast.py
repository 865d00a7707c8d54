"""What was measured on some images -> what all of them will take, with ranges. Arithmetic alone: nothing is looked up.

Shapes: K measured images.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass

import numpy as np

from model.engine_stats import EngineStats
from schemas.rows import ImageRow

CONFIDENCE = 0.9
_NUM_RESAMPLES = 2000


@dataclass(frozen=True, kw_only=True)
class Range:
    """A figure, and between which two it lies in 9 of 10 draws of the measured images."""

    low: float
    expected: float
    high: float

    def times(self, factor: float) -> "Range":
        return Range(low=self.low * factor, expected=self.expected * factor, high=self.high * factor)

    def plus(self, other: "Range") -> "Range":
        return Range(low=self.low + other.low, expected=self.expected + other.expected, high=self.high + other.high)

    def inverse(self) -> "Range":
        """Of a rate from seconds, and the other way round."""
        return Range(low=1 / self.high, expected=1 / self.expected, high=1 / self.low)


STARTUP_IN_PROCESS_STARTS = Range(low=4.5, expected=6.5, high=8.5)
"""What a run takes before its first label and after its last, in times of what one process takes to import torch and
Ray: Ray's own processes and the workers of all stages start on the same CPUs. Measured on 2 cores, idle and busy."""
BLOCK_IN_PROCESS_STARTS = Range(low=0.0, expected=0.07, high=0.15)
"""What a block costs beside its labels where these are made on the same CPUs: Ray hands it on, and its commit is
written. A GPU does not wait for that."""


@dataclass(frozen=True, kw_only=True)
class Forecast:
    images_per_s: Range
    """While labeling, of all replicas together."""
    startup_s: Range
    run_s: Range


def forecast(
    seconds_K: np.ndarray,
    *,
    num_images: int,
    num_replicas: int,
    tiling_s_per_image: float,
    num_tile_actors: int,
    process_start_s: float,
    num_blocks: int,
    on_cpus: bool,
    seed: int,
) -> Forecast:
    """Args:
    seconds_K: each measured image's share of one replica's time.
    tiling_s_per_image: of one tile actor: a cluster labels no faster than it tiles.
    process_start_s: of one fresh process that imports torch and Ray: how fast, and how busy, the machine is.
    """
    tiling_s = tiling_s_per_image / num_tile_actors
    labeling = mean_range(seconds_K, seed=seed).times(1 / num_replicas)
    if on_cpus:
        labeling = labeling.plus(BLOCK_IN_PROCESS_STARTS.times(process_start_s * num_blocks / num_images))
    s_per_image = Range(**{name: max(tiling_s, value) for name, value in asdict(labeling).items()})
    startup_s = STARTUP_IN_PROCESS_STARTS.times(process_start_s)
    return Forecast(
        images_per_s=s_per_image.inverse(),
        startup_s=startup_s,
        run_s=startup_s.plus(s_per_image.times(num_images)),
    )


def mean_range(values_K: np.ndarray, *, seed: int) -> Range:
    """The mean of all images as far as K of them tell it: a bootstrap, images drawn again from the measured ones."""
    draws = np.random.default_rng(seed).integers(len(values_K), size=(_NUM_RESAMPLES, len(values_K)))
    low, high = np.quantile(values_K[draws].mean(axis=1), [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return Range(low=float(low), expected=float(values_K.mean()), high=float(high))


def seconds_by_image(rows: Sequence[ImageRow], stats: EngineStats, labeling_s: float) -> np.ndarray:
    """(K,) each image's share of the time in which all were labelled together.

    Images share every step of the engine, so that no clock tells them apart: the time is divided by what each had the
    engine do, tiles and tokens, at the rates that the engine has measured of itself.
    """
    s_per_tile = _inverse(stats.tiles_per_s)
    s_per_prompt_token = _inverse(stats.prefill_tokens_per_s)
    s_per_output_token = _inverse(stats.decode_tokens_per_s)
    work_K = np.array(
        [
            num_tiles(row) * s_per_tile
            + _num_computed_prompt_tokens(row) * s_per_prompt_token
            + _num_decoded_tokens(row) * s_per_output_token
            for row in rows
        ]
    )
    if not work_K.any():
        work_K = np.ones(len(rows))
    return work_K / work_K.sum() * labeling_s


def num_tiles(row: ImageRow) -> int:
    """That the vision tower encodes for a sample: of all its images and marked pictures; 0 of one that failed."""
    if row.error is not None:
        return 0
    return sum(image.num_tiles for image in row.images) + sum(1 + wide * high for wide, high in row.marked_grids)


def _num_computed_prompt_tokens(row: ImageRow) -> int:
    """The prompts of a sample begin with the same images, which are computed once: the longest stands for that."""
    return max((label.num_prompt_tokens for label in row.labels), default=0)


def _num_decoded_tokens(row: ImageRow) -> int:
    return sum(label.num_output_tokens * label.attempts for label in row.labels)


def _inverse(rate: float) -> float:
    return 1 / rate if rate else 0.0
