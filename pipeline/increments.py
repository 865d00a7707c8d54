"""What a stage made of a block -> how much more its metrics count. Pure; knows neither Ray nor the stages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from pipeline import metric_names as names
from pipeline.metrics import Increment
from pipeline.recipes import Recipe
from schemas.rows import ENCODED_COLUMN, ImageRow, rows_of

if TYPE_CHECKING:
    from model.engine_stats import EngineStats

OUTCOMES = ("labelled", "quarantined")


def of_receipt(receipt: Mapping[str, int]) -> list[Increment]:
    """Of what the sink says of a committed block. An image of which one recipe failed is a quarantined one."""
    num_quarantined = receipt["num_quarantined_images"]
    by_outcome = {"labelled": receipt["num_images"] - num_quarantined, "quarantined": num_quarantined}
    return [
        Increment(metric=names.IMAGES, value=value, tags={"outcome": outcome}) for outcome, value in by_outcome.items()
    ]


def of_fetched(block: Mapping[str, Any]) -> list[Increment]:
    num_bytes = sum(len(encoded) for of_row in block[ENCODED_COLUMN] for encoded in of_row)
    return [Increment(metric=names.FETCHED_BYTES, value=num_bytes)]


def of_labelled(block: Mapping[str, Any]) -> list[Increment]:
    """Labels and their tokens by recipe, and failures by recipe and kind."""
    rows = rows_of(block)
    labels: Counter[str] = Counter()
    prompt_tokens: Counter[str] = Counter()
    output_tokens: Counter[str] = Counter()
    for label in (label for row in rows for label in row.labels):
        labels[label.recipe] += 1
        prompt_tokens[label.recipe] += label.num_prompt_tokens
        output_tokens[label.recipe] += label.num_output_tokens
    by_recipe = {names.LABELS: labels, names.PROMPT_TOKENS: prompt_tokens, names.OUTPUT_TOKENS: output_tokens}
    failures = Counter(failure for row in rows for failure in _failures(row))
    return [
        *(
            Increment(metric=metric, value=value, tags={"recipe": recipe})
            for metric, counts in by_recipe.items()
            for recipe, value in counts.items()
        ),
        *(
            Increment(metric=names.QUARANTINED, value=value, tags={"recipe": recipe, "kind": kind})
            for (recipe, kind), value in failures.items()
        ),
    ]


def of_engine(now: EngineStats, before: EngineStats | None) -> list[Increment]:
    """What an engine did since it last said so; `before`: None the first time."""
    values = _engine_values(now)
    earlier = _engine_values(before) if before is not None else dict.fromkeys(values, 0.0)
    return [Increment(metric=metric, value=max(0.0, value - earlier[metric])) for metric, value in values.items()]


def of_stage(stage: str, seconds: float) -> list[Increment]:
    """Of one block."""
    tags = {"stage": stage}
    return [
        Increment(metric=names.STAGE_SECONDS, value=seconds, tags=tags),
        Increment(metric=names.STAGE_BLOCKS, value=1, tags=tags),
    ]


def zeros_of_labels(recipes: Sequence[Recipe]) -> list[Increment]:
    """Of all that a label stage counts, except failures, whose kinds nobody knows before."""
    engine = (metric for metric in names.METRICS if metric.name.startswith("labelmill_engine_"))
    written = (names.LABELS, names.PROMPT_TOKENS, names.OUTPUT_TOKENS)
    return [
        *(Increment(metric=metric, value=0) for metric in engine),
        *(_zero(metric, recipe=recipe.name) for recipe in recipes if recipe.is_written for metric in written),
        *(_zero(names.ANSWERS, recipe=recipe.name) for recipe in recipes),
        *(
            _zero(names.REDECODES, recipe=recipe.name, gate=gate)
            for recipe in recipes
            for gate in sorted(_gates(recipe))
        ),
    ]


def _engine_values(stats: EngineStats) -> dict[names.Metric, float]:
    return {
        names.ENGINE_STEPS: stats.num_steps,
        names.ENGINE_STEP_SECONDS: stats.step_s,
        names.ENGINE_TILES: stats.num_tiles,
        names.ENGINE_PREFILL_TOKENS: stats.num_prefill_tokens,
        names.ENGINE_SHARED_TOKENS: stats.num_shared_tokens,
        names.ENGINE_DECODE_TOKENS: stats.num_decode_tokens,
        names.ENGINE_RUNNING: stats.num_running_sum,
        names.ENGINE_SLOTS: stats.num_sequence_slots_sum,
        names.ENGINE_USED_PAGES: stats.num_used_pages_sum,
        names.ENGINE_PAGES: stats.num_pages_sum,
        names.ENGINE_PREEMPTIONS: stats.num_preemptions,
        names.EXPERT_TOKENS: sum(map(sum, stats.expert_loads)),
        names.EXPERT_PEAK_TOKENS: sum(max(loads, default=0) * len(loads) for loads in stats.expert_loads),
    }


def _failures(row: ImageRow) -> Iterator[tuple[str, str]]:
    if row.error is not None:
        yield from ((recipe, str(row.error.kind)) for recipe in row.recipes)
    else:
        yield from ((recipe, str(error.kind)) for recipe, error in row.recipe_errors)


def _gates(recipe: Recipe) -> set[str]:
    """Those that may send an answer of the recipe back."""
    return {
        name
        for step in recipe.loaded.file.steps
        if step.retries
        for name, gate in step.gates
        if getattr(gate, "then", "flag") != "flag"  # that of duplicates looks at datasets, and has none
    }


def _zero(metric: names.Metric, **tags: str) -> Increment:
    return Increment(metric=metric, value=0, tags=tags)
