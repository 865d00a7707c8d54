"""Decoding and tiling of one-megapixel photographs: our stage against the reference's processor, on one CPU.

Run `python -m tests.benchmarks.tiling_against_reference --help`. Ours ends with uint8 tiles (normalised on the device
of the vision tower), the reference's with normalised floats; a third row adds that normalisation to ours. Tiles must
be identical, or there is no comparison.
"""

import argparse
import hashlib
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from model.config_files import load_processor_config
from pipeline.prepare import TileImage
from schemas.rows import ENCODED_COLUMN, TILES_COLUMN, ImageRow, RowImage, rows_of, to_columns
from tests import golden
from tests.benchmarks.comparison import compare, machine, print_setting, take_turns, use_cpus, write_json
from tests.benchmarks.photographs import MEGAPIXEL_SIZES, photographs
from tests.benchmarks.reference_process import ReferenceProcess, add_reference_arguments, images_in, write_images

OURS, OURS_NORMALISED, THEIRS = "labelmill", "labelmill, normalised too", "reference processor"
_CHECKPOINT = "small-like"
"""Only its processor is read: tile size and candidate resolutions are those of the published checkpoints."""
_MAX_PIXELS = 200_000_000


def main() -> None:
    arguments = _parse()
    use_cpus(1)
    torch.set_num_threads(1)
    checkpoint = golden.checkpoint_folder(_CHECKPOINT)
    stage = TileImage(
        candidate_resolutions=load_processor_config(checkpoint).candidate_resolutions, max_pixels=_MAX_PIXELS
    )
    with tempfile.TemporaryDirectory() as folder:
        if arguments.images:
            paths = images_in(arguments.images, arguments.num_images)
        else:
            paths = write_images(Path(folder), photographs(arguments.num_images, MEGAPIXEL_SIZES, seed=arguments.seed))
        with ReferenceProcess(folder=arguments.reference, python=arguments.python) as reference:
            loaded = reference.ask("load", checkpoint=str(checkpoint), num_threads=1, with_model=False)
            setting = machine(1) | {
                "pillow": Image.__version__,
                "reference": ", ".join(f"{name} {version}" for name, version in loaded["versions"].items()),
                "images": len(paths),
                "megapixels": round(float(np.mean([_megapixels(path) for path in paths])), 3),
            }
            print_setting(setting)
            require_identical_tiles(stage, reference, paths)
            rates = take_turns(
                {
                    OURS: lambda: _our_rate(stage, paths, normalised=False),
                    OURS_NORMALISED: lambda: _our_rate(stage, paths, normalised=True),
                    THEIRS: lambda: len(paths) / reference.ask("tile", images=paths)["elapsed_s"],
                },
                arguments.repeats,
            )
    write_json(arguments.json, {"setting": setting, "tiling": compare("images/s", rates, ours=OURS)})


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    add_reference_arguments(parser)
    parser.add_argument("--num-images", type=int, default=40)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", help="also write the figures to this file")
    return parser.parse_args()


def tile_file(stage: TileImage, path: str) -> np.ndarray:
    """What the stage makes of a block of one file, which is read here. Raises RuntimeError where it gives it up."""
    row = ImageRow(sample_id="", images=(RowImage(uri=path),), manifest_shard="", recipes=())
    block = stage(to_columns([row], **{ENCODED_COLUMN: [[Path(path).read_bytes()]]}))
    (row,) = rows_of(block)
    if row.error is not None:
        raise RuntimeError(f"{path}: {row.error.message}")
    return block[TILES_COLUMN][0]


def require_identical_tiles(stage: TileImage, reference: ReferenceProcess, paths: Sequence[str]) -> None:
    """Raises AssertionError naming the first image whose tiles differ in any pixel."""
    paths = list(dict.fromkeys(paths))
    for path, wanted in zip(paths, reference.ask("tile_hashes", images=paths), strict=True):
        tiles = np.ascontiguousarray(tile_file(stage, path))
        if hashlib.sha256(tiles.tobytes()).hexdigest() != wanted:
            raise AssertionError(f"{path}: the tiles are not the reference's")
    print(f"tiles of all {len(paths)} images are identical")


def _our_rate(stage: TileImage, paths: Sequence[str], *, normalised: bool) -> float:
    start = time.perf_counter()
    for path in paths:
        tiles = tile_file(stage, path)
        if normalised:
            _pixels = (torch.from_numpy(tiles).permute(0, 3, 1, 2).float() / 255 - 0.5) / 0.5
    return len(paths) / (time.perf_counter() - start)


def _megapixels(path: str) -> float:
    with Image.open(path) as image:
        return image.width * image.height / 1e6


if __name__ == "__main__":
    main()
