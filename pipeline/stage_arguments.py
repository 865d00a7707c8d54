"""A job -> the arguments of the stages that fetch and tile its images, for everybody who builds them: a run, a plan, an
export, the labeling of one image. Knows neither Ray nor what is done with the tiles.
"""

from collections.abc import Sequence
from typing import Any

from pipeline.pdf_pages import pdf_settings
from pipeline.recipes import Recipe, names_with_marks
from pipeline.uri_policy import UriPolicy
from schemas.job import JobSpec, LimitsSpec


def fetch_arguments(job: JobSpec, *, image_column: str | None, uri_policy: UriPolicy) -> dict[str, Any]:
    """Of `FetchImage`."""
    return {
        "max_bytes": job.limits.max_bytes,
        "max_images": job.limits.max_images,
        "image_column": image_column,
        "uri_policy": uri_policy,
        "pdf": pdf_settings(job.source, job.limits),
    }


def tile_arguments(
    limits: LimitsSpec, *, candidate_resolutions: tuple[tuple[int, int], ...], recipes: Sequence[Recipe]
) -> dict[str, Any]:
    """Of `TileImage`; `recipes` tell which of them look at pictures with marks."""
    return {
        "candidate_resolutions": candidate_resolutions,
        "max_pixels": limits.max_pixels,
        "min_decoded_fraction": limits.min_decoded_fraction,
        "decode_timeout_s": limits.decode_timeout_s,
        "decode_memory_mb": limits.decode_memory_mb,
        "mark_recipes": names_with_marks(recipes),
        "max_marks": limits.max_images,
    }
