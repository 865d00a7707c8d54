"""Uploaded files and a choice of recipes -> their labels, for any number of people who share one engine and watch.

The stages are those of a job. Knows no page.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from model.checkpoint_files import digest as checkpoint_digest
from model.checkpoint_files import local_folder
from model.config_files import load_processor_config
from model.tiling import fitted
from pipeline.label import LabelImage, ReplicaConfig
from pipeline.prepare import TileImage
from pipeline.previews import Preview, Previews, open_processes
from pipeline.recipes import load_recipe, make_recipes
from pipeline.recipes.watch import Watch
from pipeline.stage_arguments import tile_arguments
from pipeline.views import split_tiles
from schemas.errors import ErrorKind, RowError
from schemas.job import EngineSpec, LimitsSpec, RecipeSpec
from schemas.rows import TILES_COLUMN, ImageRow, Mark, RowImage, Turn, rows_of, to_columns

PREVIEW_SIDE = 1024
_LOOKS_AT_MARKS = "looks-at-marks"
"""Stands for whatever recipe does, while a sample is tiled: its marks are drawn then."""

Rectangle = tuple[float, float, float, float]
"""Left, top, right, bottom in pixels of the image."""


@dataclass(frozen=True, kw_only=True)
class Picture:
    """One image as the page and the model see it: `tiles` uint8 [N, S, S, 3], the global view and then the grid row by
    row. `crops`: where in the image each tile of the grid lies; what reaches over the edge is grey there."""

    name: str
    preview: Preview
    grid: tuple[int, int]
    tiles: np.ndarray
    crops: tuple[Rectangle, ...]


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """`tiles` of the sample, as the engine takes them. With an error in `row` there are no pictures."""

    row: ImageRow
    tiles: np.ndarray
    pictures: tuple[Picture, ...]


class Studio:
    """Close it, or use it as a context manager."""

    def __init__(self, *, checkpoint: str, engine: EngineSpec, limits: LimitsSpec) -> None:
        """Raises ValueError for a checkpoint that cannot be loaded."""
        folder = local_folder(checkpoint)
        self.limits = limits
        self._resolutions = load_processor_config(folder).candidate_resolutions
        self._digest = checkpoint_digest(folder)
        self._label = LabelImage(replica=ReplicaConfig(checkpoint=checkpoint, engine=engine), recipes=())
        self._label.stats()  # raises where the checkpoint did not load
        arguments = tile_arguments(limits, candidate_resolutions=self._resolutions, recipes=())
        self._tiler = TileImage(**{**arguments, "mark_recipes": (_LOOKS_AT_MARKS,), "num_threads": 2})
        self._previews = Previews(limits, side=PREVIEW_SIDE, num_processes=2)
        open_processes(self._tiler)

    def prepare(self, files: Sequence[tuple[str, Path]], *, mark: Mark | None = None) -> Prepared:
        """Reads, decodes and tiles one sample of several images. Blocks; may be called from several threads.

        Args:
            files: their names for people, and where they lie.
            mark: drawn onto the first image, for recipes that look at marks.
        """
        row = ImageRow(
            sample_id="app",
            images=tuple(RowImage(uri=name) for name, _ in files),
            manifest_shard="",
            recipes=(_LOOKS_AT_MARKS,) if mark is not None else (),
            marks=(mark,) if mark is not None else (),
        )
        encoded = self._read(files)
        if isinstance(encoded, RowError):
            return _without_pictures(row.failed(encoded))
        shas = [hashlib.sha256(data).hexdigest() for data in encoded]
        row = replace(row, images=tuple(replace(one, sha256=sha) for one, sha in zip(row.images, shas, strict=True)))
        previews = self._previews.of(encoded)
        if isinstance(previews, RowError):
            return _without_pictures(row.failed(previews))
        block = self._tiler(to_columns([row], encoded=[encoded]))
        (row,), tiles = rows_of(block), block[TILES_COLUMN][0]
        if row.error is not None:
            return _without_pictures(row)
        return Prepared(row=row, tiles=tiles, pictures=_pictures(row, tiles, previews))

    async def label(
        self, prepared: Prepared, specs: Sequence[RecipeSpec], *, turns: Sequence[str] = (), watch: Watch
    ) -> ImageRow:
        """The sample with its labels, and why a recipe has none. Cancelled, it leaves the engine at once.

        Args:
            turns: of a conversation about the images, what the user says.

        Raises:
            JobError: the recipes do not go with what they are given.
        """
        recipes = make_recipes(specs, checkpoint_digest=self._digest)
        names = tuple(recipe.name for recipe in recipes if recipe.is_written)
        row = replace(prepared.row, recipes=names, turns=_conversation(turns, len(prepared.row.images)))
        return await self._label.label(row, prepared.tiles, recipes=recipes, watch=watch)

    def num_decode_tokens(self) -> int:
        """That the engine has decoded so far: it stands still when nobody asks."""
        return self._label.stats().num_decode_tokens

    def close(self) -> None:
        self._label.close()
        self._tiler.close()
        self._previews.close()

    def __enter__(self) -> "Studio":
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()

    def _read(self, files: Sequence[tuple[str, Path]]) -> list[bytes] | RowError:
        if len(files) > self.limits.max_images:
            message = f"{len(files)} images are more than {self.limits.max_images}, which one sample may have"
            return RowError(kind=ErrorKind.TOO_MANY_IMAGES, message=message)
        encoded = []
        for name, path in files:
            with open(path, "rb") as file:
                encoded.append(file.read(self.limits.max_bytes + 1))
            if len(encoded[-1]) > self.limits.max_bytes:
                message = f"{name} has more than {self.limits.max_bytes} bytes"
                return RowError(kind=ErrorKind.TOO_MANY_BYTES, message=message)
            if not encoded[-1]:
                return RowError(kind=ErrorKind.EMPTY, message=f"{name} is empty")
        return encoded


def skipped(specs: Sequence[RecipeSpec], num_images: int) -> list[str]:
    """Why recipes are not run on so many images, a sentence each."""
    sentences = []
    for spec in specs:
        file = load_recipe(spec.name).file
        if not file.takes(num_images):
            most = "or more" if file.max_images is None else f"to {file.max_images}"
            wanted = str(file.min_images) if file.min_images == file.max_images else f"{file.min_images} {most}"
            sentences.append(f"{file.name} takes {wanted} images, and got {num_images}")
    return sentences


def _without_pictures(row: ImageRow) -> Prepared:
    return Prepared(row=row, tiles=np.empty((0, 0, 0, 3), dtype=np.uint8), pictures=())


def _pictures(row: ImageRow, tiles: np.ndarray, previews: Sequence[Preview]) -> tuple[Picture, ...]:
    grids = [(image.tiles_wide, image.tiles_high) for image in row.images]
    num_tiles = sum(image.num_tiles for image in row.images)  # those of marked pictures follow
    return tuple(
        Picture(
            name=image.uri,
            preview=preview,
            grid=tiled.grid,
            tiles=tiled.tiles,
            crops=_crops(image.width_px, image.height_px, tiled.grid, tiled.tiles.shape[1]),
        )
        for image, preview, tiled in zip(row.images, previews, split_tiles(tiles[:num_tiles], grids), strict=True)
    )


def _crops(width_px: int, height_px: int, grid: tuple[int, int], side: int) -> tuple[Rectangle, ...]:
    wide, high = grid
    left, top, inner_width, inner_height = fitted(width_px, height_px, wide * side, high * side)
    per_x, per_y = width_px / inner_width, height_px / inner_height
    return tuple(
        (
            (x * side - left) * per_x,
            (y * side - top) * per_y,
            ((x + 1) * side - left) * per_x,
            ((y + 1) * side - top) * per_y,
        )
        for y in range(high)
        for x in range(wide)
    )


def _conversation(said: Sequence[str], num_images: int) -> tuple[Turn, ...]:
    """The user's turns, each followed by one of the assistant's that is to be given."""
    turns: list[Turn] = []
    for place, text in enumerate(said):
        images = tuple(range(num_images)) if place == 0 else ()
        turns += [Turn(role="user", text=text, images=images), Turn(role="assistant", text="")]
    return tuple(turns)
