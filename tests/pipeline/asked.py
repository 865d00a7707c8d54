"""Recipes that run on a scripted view, and recipe files of the tests' own."""

import asyncio
import dataclasses
import hashlib
import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.recipes import make_recipes
from schemas.recipe_specs import RecipeSpec
from schemas.rows import ImageRow, Label, RowImage
from tests.pipeline.outputs import ScriptedView, ScriptedViews
from tests.pipeline.rows import one_image_row


def row_of(name: str = "a", *, images: Sequence[RowImage] | None = None, **fields: Any) -> ImageRow:
    """Of one image, unless it is told which ones."""
    row = one_image_row(
        **{
            "sample_id": name,
            "image_uri": f"s3://bucket/{name}.jpg",
            "version": "1",
            "manifest_shard": "shard-00000.parquet",
            "recipes": (),
            "image_sha256": hashlib.sha256(name.encode()).hexdigest(),
            "width_px": 1998,
            "height_px": 999,
            **fields,
        }
    )
    return row if images is None else dataclasses.replace(row, images=tuple(images))


def images_of(*sizes_px: tuple[int, int]) -> tuple[RowImage, ...]:
    return tuple(
        RowImage(uri=f"{number}.jpg", sha256=f"{number:064}", width_px=width, height_px=height)
        for number, (width, height) in enumerate(sizes_px)
    )


def ask(
    spec: RecipeSpec,
    row: ImageRow | None = None,
    *,
    says: str | Sequence[str] = "seen",
    earlier: Mapping[str, Sequence[Label]] | None = None,
    others: Sequence[RecipeSpec] = (),
    **said: Any,
) -> tuple[list[Label], ScriptedView]:
    """The labels of one recipe on one sample, and the view it asked.

    Args:
        says: the answer, or several in the order of the questions.
        others: the rest of the job.
    """
    recipes = make_recipes([*others, spec], checkpoint_digest="c")
    recipe = next(recipe for recipe in recipes if recipe.spec == spec)
    view = ScriptedView(*([says] if isinstance(says, str) else says), **said)
    labels = asyncio.run(recipe.label(ScriptedViews(view), row or row_of(), earlier or {}))
    return labels, view


def data(text: str) -> dict[str, str]:
    """A part of a prompt that is data."""
    return {"type": "text", "text": text}


def put_recipe(folder: Path, text: str, name: str = "mine") -> str:
    """A recipe file that says this beside its name, its sentence and its table, unless it says those as well."""
    lines = textwrap.dedent(text).strip("\n")
    given = {line.partition(":")[0] for line in lines.splitlines()}
    own = {"name": name, "about": "For a test.", "table": "captions"}
    head = "".join(f"{key}: {value}\n" for key, value in own.items() if key not in given)
    path = folder / f"{name}.yaml"
    path.write_text(f"{head}{lines}\n")
    return str(path)
