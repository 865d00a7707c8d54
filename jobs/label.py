"""`labelmill label`: one image and some recipes -> labels, printed."""

import json
from collections.abc import Sequence
from typing import Any

from jobs.exit_codes import EXIT_DONE, EXIT_FAILED
from jobs.job_file import read_job
from pipeline.recipes import load_recipe
from schemas.job import JobError, JobSpec
from schemas.rows import ImageRow, Label


def label_file(
    image: str,
    *,
    recipes: Sequence[str],
    questions: Sequence[str],
    queries: Sequence[str],
    checkpoint: str,
    overrides: Sequence[str],
    as_json: bool,
) -> int:
    """Returns the exit code: 1 where the image or a recipe failed, with the reason printed."""
    job = _job(image, recipes, questions, queries, checkpoint, overrides)
    from pipeline.label_one import label_one  # not at the top: a misspelt recipe is told before torch is imported

    row = label_one(image, recipes=job.recipes, checkpoint=job.checkpoint, engine=job.engine, limits=job.limits)
    if row.error is not None:
        raise ValueError(f"{row.error.stage} failed ({row.error.kind}): {row.error.message}")
    if as_json:
        print(json.dumps(_record(row), ensure_ascii=False))
    else:
        print(f"{image}: {row.width_px}x{row.height_px} px, {row.tiles_wide}x{row.tiles_high} tiles")
        for label in row.labels:
            print(_text(label))
    for recipe, error in row.recipe_errors:
        print(f"{recipe} failed ({error.kind}): {error.message}")
    return EXIT_FAILED if row.recipe_errors else EXIT_DONE


def _job(
    image: str,
    recipes: Sequence[str],
    questions: Sequence[str],
    queries: Sequence[str],
    checkpoint: str,
    overrides: Sequence[str],
) -> JobSpec:
    """The command's arguments as a job, so that they are checked and overridden as in a job file."""
    wanted = list(recipes) or [name for name, given in (("qa", questions), ("grounding", queries)) if given]
    entries: list[dict[str, Any]] = [{"name": name} for name in wanted or ["caption"]]
    for entry in entries:
        repeats = _repeats(entry["name"])
        entry |= {"questions": list(questions)} if {"questions", "marks"} & repeats else {}
        entry |= {"queries": list(queries)} if "queries" in repeats else {}
    document = {"name": "label", "source": image, "checkpoint": checkpoint, "recipes": entries, "output": "-"}
    return read_job("\n" + json.dumps(document), overrides)


def _repeats(name: str) -> set[str]:
    """What the recipe asks for each of; a recipe that there is not is told with the others' mistakes."""
    try:
        return load_recipe(name).file.repeats_for()
    except JobError:
        return set()


def _text(label: Label) -> str:
    values = label.values
    shown = [f"{name}: {values[name]}" for name in ("question", "query", "of_recipe") if values.get(name)]
    shown += [f"{name}: {values[name]}" for name in ("reasoning", "answer", "score") if values.get(name) is not None]
    shown += [str(values[name]) for name in ("caption", "code") if name in values]
    if label.table == "ocr":
        shown.append(values["text"])
    if "boxes" in values:
        shown += [
            f"  {box['label']}: ({box['x1']:.1f}, {box['y1']:.1f}) to ({box['x2']:.1f}, {box['y2']:.1f}) px"
            for box in values["boxes"]
        ] or ["  no box"]
    flags = f" [{', '.join(label.flags)}]" if label.flags else ""
    return f"\n{label.recipe} ({label.num_output_tokens} tokens, {label.finish_reason}){flags}\n" + "\n".join(shown)


def _record(row: ImageRow) -> dict[str, Any]:
    """As in the tables: the columns of the image and, per label, its own."""
    labels = [
        {
            "recipe": label.recipe,
            "item": label.item,
            "instruction": label.instruction,
            "variant": label.variant,
            "attempts": label.attempts,
            "prompt": label.prompt,
            "finish_reason": label.finish_reason,
            "mean_logprob": label.mean_logprob,
            "num_prompt_tokens": label.num_prompt_tokens,
            "num_output_tokens": label.num_output_tokens,
            "flags": [*row.flags, *label.flags],
            **label.values,
        }
        for label in row.labels
    ]
    return {
        "image_uri": row.image_uri,
        "image_sha256": row.image_sha256,
        "width_px": row.width_px,
        "height_px": row.height_px,
        "tiles_wide": row.tiles_wide,
        "tiles_high": row.tiles_high,
        "labels": labels,
    }
