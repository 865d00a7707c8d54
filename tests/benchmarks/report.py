"""A number of label rows -> time and memory that the report of their output takes, and the size of its page.

    python -m tests.benchmarks.report --rows 1000000

The output is finished, with four recipes, five tables and images that can be fetched; making it takes longer than what
is measured. The report is written by a process of its own. See docs/performance.md for what was measured.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from typing import Any

from tests.benchmarks.scale import REPOSITORY, peak_mb


def main() -> None:
    arguments = _arguments()
    if arguments.step:
        print(json.dumps(_STEPS[arguments.step](arguments)))
        return
    print(_line(*_COLUMNS), flush=True)
    for num_rows in arguments.rows:
        with tempfile.TemporaryDirectory(prefix="labelmill-report-", dir=arguments.folder or None) as folder:
            made = _in_a_process("make", folder, num_rows, arguments.images)
            found = _in_a_process("report", folder, num_rows, arguments.images)
        row = (found["num_rows"], made["images"], made["shards"], found["wall_s"], found["cpu_s"], found["peak_mb"])
        print(_line(*row, found["before_mb"], found["num_bytes"] / 1e6, found["num_cards"]), flush=True)


def make(arguments: argparse.Namespace) -> dict[str, Any]:
    from tests.benchmarks.report_data import make_output

    return make_output(arguments.folder, *arguments.rows)


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """In this process, which must be new: a peak is of the whole life of a process."""
    from pipeline.report.page import write_report

    before_mb, wall_s, cpu_s = peak_mb(), time.perf_counter(), time.process_time()
    written = write_report(os.path.join(arguments.folder, "labels"), max_images=arguments.images)
    return {
        "wall_s": time.perf_counter() - wall_s,
        "cpu_s": time.process_time() - cpu_s,
        "peak_mb": peak_mb(),
        "before_mb": before_mb,
        "num_rows": written.num_rows,
        "num_bytes": written.num_bytes,
        "num_cards": written.num_cards,
    }


_STEPS = {"make": make, "report": report}


_COLUMNS = ("rows", "images", "shards", "wall s", "CPU s", "peak MB", "before", "page MB", "cards")


def _line(*values: float | str) -> str:
    return "".join(f"{value:>9.1f}" if isinstance(value, float) else f"{value:>9}" for value in values)


def _in_a_process(step: str, folder: str, num_rows: int, num_images: int) -> dict[str, Any]:
    command = [sys.executable, "-m", __spec__.name, "--step", step, "--folder", folder, "--rows", str(num_rows)]
    process = subprocess.run([*command, "--images", str(num_images)], cwd=REPOSITORY, capture_output=True, text=True)
    if process.returncode:
        sys.exit(f"step {step} failed:\n{process.stderr}")
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000])
    parser.add_argument("--images", type=int, default=120, help="in the gallery")
    parser.add_argument("--folder", default="", help="where the temporary folder is made")
    parser.add_argument("--step", default="", choices=["", *_STEPS], help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
