"""What was drawn and measured of a job -> the parts of its plan, as JSON can hold them.

Numbers of images count samples, as in a run's summary; grids and tiles are of pictures.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from pipeline.forecast import forecast, num_tiles, seconds_by_image
from pipeline.measure import Measured
from pipeline.output_size import bytes_per_image
from pipeline.placement import Placement
from pipeline.sample import Drawn
from pipeline.sink import SinkConfig
from pipeline.token_counts import TokenCounts
from pipeline.work import InspectedJob
from schemas.rows import ImageRow


@dataclass(frozen=True, kw_only=True)
class Sampled:
    """Rows drawn from those to label, with the sizes that their headers tell."""

    rows: tuple[ImageRow, ...]
    took_s: float


def sample_facts(sampled: Sampled, drawn: Drawn, *, seed: int) -> dict[str, Any]:
    """grids: by wide x high in tiles, how many pictures of the sample; tiles: that the vision tower would encode."""
    images = [image for row in sampled.rows if row.error is None for image in row.images]
    grids = Counter((image.tiles_wide, image.tiles_high) for image in images)
    tiles_per_image = sum(map(num_tiles, sampled.rows)) / max(1, len(sampled.rows))
    return {
        "num_images": len(sampled.rows),
        "seed": seed,
        "took_s": round(sampled.took_s, 3),
        "grids": {f"{wide}x{high}": count for (wide, high), count in sorted(grids.items())},
        "tiles_per_image": tiles_per_image,
        "num_tiles": round(tiles_per_image * drawn.num_to_label),
        "quarantined": _failed(sampled.rows),
    }


def measured_facts(measured: Measured, placement: Placement) -> dict[str, Any]:
    stats = measured.stats
    return {
        "num_images": len(measured.rows),
        "num_labels": sum(len(row.labels) for row in measured.rows),
        "labeling_s": round(measured.labeling_s, 3),
        "tiling_s": round(measured.tiling_s, 3),
        "load_s": round(measured.load_s, 3),
        "process_start_s": round(measured.process_start_s, 3),
        "num_threads": None if placement.label_num_gpus else placement.label_num_threads,
        "num_tile_threads": measured.num_tile_threads,
        "expert_ranks": placement.expert_ranks,
        "quarantined": _failed(measured.rows),
        "tiles_per_s": stats.tiles_per_s,
        "prefill_tokens_per_s": stats.prefill_tokens_per_s,
        "decode_tokens_per_s": stats.decode_tokens_per_s,
        "batch_occupancy": stats.batch_occupancy,
    }


def recipe_facts(
    inspected: InspectedJob, tokens: Mapping[str, TokenCounts], measured: Measured | None, drawn: Drawn
) -> dict[str, Any]:
    """By recipe that is written: means per label, and sums over all that the run would make; None for what neither a
    measurement nor a dataset tells."""
    facts: dict[str, Any] = {}
    for name in inspected.recipe_digests:
        counts = tokens.get(name)
        of_recipe: dict[str, Any] = {} if counts is None else counts.as_dict()
        if measured is not None:
            num_labels = sum(label.recipe == name for row in measured.rows for label in row.labels)
            labels_per_image = num_labels / len(measured.rows)
            total = labels_per_image * drawn.num_to_label
            of_recipe |= {"labels_per_image": labels_per_image, "num_labels_expected": round(total)}
            if counts is not None:
                of_recipe["num_prompt_tokens_expected"] = round(total * of_recipe["prompt_tokens"])
                of_recipe["num_output_tokens_expected"] = round(total * of_recipe["output_tokens"])
        facts[name] = of_recipe
    return facts


def forecast_facts(
    inspected: InspectedJob, measured: Measured, placement: Placement, drawn: Drawn, *, seed: int
) -> dict[str, Any]:
    """Of what is left to label: seconds and rates as ranges, and bytes of the tables that are written."""
    seconds = forecast(
        seconds_by_image(measured.rows, measured.stats, measured.labeling_s),
        num_images=drawn.num_to_label,
        num_replicas=placement.num_label_actors,
        tiling_s_per_image=measured.tiling_s * measured.num_tile_threads / len(measured.rows),
        num_tile_actors=placement.num_tile_actors,
        process_start_s=measured.process_start_s,
        num_blocks=-(-drawn.num_to_label // placement.rows_per_block(drawn.num_to_label)),
        on_cpus=not placement.label_num_gpus,
        seed=seed,
    )
    num_gpus = placement.num_label_actors * placement.label_num_gpus
    failed = sum(row.error is not None or bool(row.recipe_errors) for row in measured.rows)
    return {
        "images_per_s": asdict(seconds.images_per_s),
        "startup_s": asdict(seconds.startup_s),
        "run_s": asdict(seconds.run_s),
        "gpu_hours": asdict(seconds.run_s.times(num_gpus / 3600)) if num_gpus else None,
        "output_bytes": round(bytes_per_image(measured.rows, _sink_config(inspected)) * drawn.num_to_label),
        "quarantined_fraction": failed / len(measured.rows),
    }


def _sink_config(inspected: InspectedJob) -> SinkConfig:
    return SinkConfig(
        output_uri="",
        checkpoint=inspected.checkpoint,
        recipe_digests=inspected.recipe_digests,
        carried_schema=inspected.source.carried_schema,
    )


def _failed(rows: Sequence[ImageRow]) -> dict[str, int]:
    """By reason, how many of the rows would be quarantined for it, with at least one recipe."""
    kinds: Counter[str] = Counter()
    for row in rows:
        errors = [row.error] if row.error is not None else [error for _, error in row.recipe_errors]
        kinds.update({str(error.kind) for error in errors})
    return dict(kinds.most_common())
