"""`labelmill label`: some images and recipes -> labels, printed, and drawn."""

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from PIL import Image
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from jobs.draw_boxes import draw_boxes
from jobs.exit_codes import EXIT_DONE, EXIT_FAILED
from jobs.job_file import made_job
from pipeline.recipes import load_recipe
from schemas.errors import RowError
from schemas.job import JobError, JobSpec, LimitsSpec
from schemas.rows import ImageRow, Label

if TYPE_CHECKING:
    from pipeline.label_here import LabelledHere


def label_files(
    images: Sequence[str],
    *,
    recipes: Sequence[str],
    questions: Sequence[str],
    queries: Sequence[str],
    checkpoint: str,
    overrides: Sequence[str],
    draw: Path | None,
    as_json: bool,
) -> int:
    """Returns the exit code: 1 where an image or a recipe failed, or an image could not be drawn, with the reason
    printed; of several images the others are labelled all the same. One image that fails raises ValueError."""
    job = _job(images[0], recipes, questions, queries, checkpoint, overrides)
    if draw is not None and draw.suffix.lower() != ".png":
        raise ValueError(f"--draw writes a PNG: give a name that ends in .png, not {draw}")
    from pipeline.label_here import label_here  # not at the top: a misspelt recipe is told before torch is imported

    done = label_here(images, recipes=job.recipes, checkpoint=job.checkpoint, engine=job.engine, limits=job.limits)
    if len(done) == 1 and done[0].row.error is not None:
        raise ValueError(_failure(done[0].row.error))
    all_drawn = True
    console = Console(soft_wrap=True, highlight=False, markup=False)
    for number, (image, found) in enumerate(zip(images, done, strict=True), 1):
        row = found.row
        if as_json:
            print(json.dumps(_record(row), ensure_ascii=False))
        elif row.error is not None:
            console.print(f"{image}: {_failure(row.error)}")
        else:
            _print(console, image, row)
        if not as_json:
            for recipe, error in row.recipe_errors:
                console.print(f"{recipe} failed ({error.kind}): {error.message}")
        if draw is not None and row.error is None:
            path = draw if len(done) == 1 else draw.with_stem(f"{draw.stem}-{number}")
            all_drawn &= _draw(image, found, job.limits, path)
    failed = any(found.row.error is not None or found.row.recipe_errors for found in done)
    return EXIT_FAILED if failed or not all_drawn else EXIT_DONE


def _draw(image: str, found: "LabelledHere", limits: LimitsSpec, path: Path) -> bool:
    """Whether that went well; else the reason is printed. Raises ValueError where the file cannot be written."""
    from pipeline.previews import large_preview

    row = found.row
    seen = large_preview(found.encoded, limits, width_px=row.width_px, height_px=row.height_px)
    if isinstance(seen, RowError):
        print(f"{image} cannot be drawn: {_failure(seen)}", file=sys.stderr)
        return False
    size_px = seen.width_px, seen.height_px
    num_boxes = draw_boxes(Image.fromarray(seen.pixels), row.labels, path, size_px=size_px)
    print(f"{num_boxes} boxes drawn into {path}", file=sys.stderr)
    return True


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
    return made_job(document, overrides)


def _repeats(name: str) -> set[str]:
    """What the recipe asks for each of; a recipe that there is not is told with the others' mistakes."""
    try:
        return load_recipe(name).file.repeats_for()
    except JobError:
        return set()


def _failure(error: RowError) -> str:
    return f"{error.stage} failed ({error.kind}): {error.message}"


def _print(console: Console, image: str, row: ImageRow) -> None:
    console.print(f"{image}: {row.width_px}x{row.height_px} px, {row.tiles_wide}x{row.tiles_high} tiles")
    for label in row.labels:
        console.print(_text(label))
        if "boxes" in label.values:
            console.print(_table(label.values["boxes"]) if label.values["boxes"] else "  no box")
    console.print()


def _table(boxes: Sequence[Mapping[str, Any]]) -> Table:
    table = Table(box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("box")
    for side in ("left", "top", "right", "bottom"):
        table.add_column(f"{side}, px", justify="right")
    for box in boxes:
        table.add_row(box["label"], *(f"{box[key]:.1f}" for key in ("x1", "y1", "x2", "y2")))
    return table


def _text(label: Label) -> str:
    values = label.values
    shown = [f"{name}: {values[name]}" for name in ("question", "query", "of_recipe") if values.get(name)]
    shown += [f"{name}: {values[name]}" for name in ("reasoning", "answer", "score") if values.get(name) is not None]
    shown += [str(values[name]) for name in ("caption", "code") if name in values]
    if label.table == "ocr":
        shown.append(values["text"])
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
    failed = {recipe: {"kind": str(error.kind), "message": error.message} for recipe, error in row.recipe_errors}
    return {
        "image_uri": row.image_uri,
        "error": row.error and {"kind": str(row.error.kind), "message": row.error.message},
        "failed_recipes": failed,
        "image_sha256": row.image_sha256,
        "width_px": row.width_px,
        "height_px": row.height_px,
        "tiles_wide": row.tiles_wide,
        "tiles_high": row.tiles_high,
        "labels": labels,
    }
