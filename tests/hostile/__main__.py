"""Hostile files -> what the tiling stage of this process makes of each. Run `python -m tests.hostile --help`."""

import argparse
import json
from contextlib import closing
from pathlib import Path

from pipeline.prepare import TileImage
from schemas.rows import ENCODED_COLUMN, rows_of, to_columns
from tests.hostile.corpus import hostile_files
from tests.hostile.hostile_file import TILES, HostileFile
from tests.pipeline.rows import one_image_row

_CANDIDATES = ((28, 28), (56, 28), (28, 56))
_MAX_PIXELS = 4_000_000
_MEMORY_MB = 3072
"""Libwebp opens a file on two canvases of its full size, 2 GiB at most, before anybody can look at that size."""
_BLOCK_ROWS = 16


def main() -> None:
    """Prints a JSON line for each file, then one on this process: how its memory grew, which children it left."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--num-variants", type=int, default=12)
    parser.add_argument("--num-threads", type=int, default=2)
    arguments = parser.parse_args()
    files = list(hostile_files(seed=arguments.seed, num_variants=arguments.num_variants))
    stage = TileImage(
        candidate_resolutions=_CANDIDATES,
        max_pixels=_MAX_PIXELS,
        decode_memory_mb=_MEMORY_MB,
        num_threads=arguments.num_threads,
    )
    Path("/proc/self/clear_refs").write_text("5")  # the peak of memory is now what is in use
    before_kib = _peak_memory_kib()
    with closing(stage):
        for start in range(0, len(files), _BLOCK_ROWS):
            _run(stage, files[start : start + _BLOCK_ROWS])
    threads = Path("/proc/self/task").iterdir()
    children = " ".join((thread / "children").read_text() for thread in threads).split()
    print(json.dumps({"memory_growth_mb": (_peak_memory_kib() - before_kib) / 1024, "children": children}))


def _run(stage: TileImage, files: list[HostileFile]) -> None:
    rows = [
        one_image_row(sample_id=file.name, image_uri=file.name, version="", manifest_shard="", recipes=())
        for file in files
    ]
    block = stage(to_columns(rows, **{ENCODED_COLUMN: [[file.encoded] for file in files]}))
    for file, row in zip(files, rows_of(block), strict=True):
        end, message = (TILES, "") if row.error is None else (row.error.kind, row.error.message)
        print(json.dumps({"group": file.group, "name": file.name, "end": end, "flags": row.flags, "message": message}))


def _peak_memory_kib() -> int:
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1])


if __name__ == "__main__":
    main()
