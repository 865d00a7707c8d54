"""A number of images -> time and memory of every step that a job's accounts take, measured on this machine.

    python -m tests.benchmarks.scale --images 1000000
    python -m tests.benchmarks.scale --images 20000 --finalized-images 20000 --store s3

Rows, commits and staged files are real and go through the pipeline's own code; there is no model and no cluster. Each
step runs in a process of its own. See docs/scale.md for what was measured.
"""

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).parents[2]
PLANNING = ("manifest", "commit half", "plan", "list pending", "status")
FINALIZING = ("label", "finalize", "second run", "verify")
LISTING = ("manifest", "plan")
READING = ("status", "verify")
"""Commands of their own; all other steps are measured in a process that has imported what the driver of a run has."""


def main() -> None:
    arguments = _arguments()
    if arguments.step:
        print(json.dumps(measured(arguments.step, arguments.folder, arguments.source, arguments.output)))
        return
    with _folder(arguments) as (local_folder, folder_uri):
        measure_all(arguments, local_folder, folder_uri)


def measure_all(arguments: argparse.Namespace, local_folder: str, folder_uri: str) -> None:
    from tests.benchmarks import scale_data

    print(f"{'step':<16}{'images':>9}{'wall s':>9}{'CPU s':>9}{'peak MB':>9}  of it before", flush=True)
    for num_images, output, steps in (
        (arguments.images, "planned", PLANNING),
        (arguments.finalized_images, "finalized", FINALIZING),
    ):
        if num_images:
            scale_data.put_table_of_uris(folder_uri, num_images)
            for step in steps:
                _measure(step, num_images, folder_uri, "images.parquet", output)
    if arguments.files:
        scale_data.make_empty_files(local_folder, arguments.files)
        for step in LISTING:
            _measure(step, arguments.files, local_folder, "files", "of-files")


def measured(step: str, folder_uri: str, source: str, output: str) -> dict[str, Any]:
    """Runs one step in this process, which must be new: a peak is of the whole life of a process."""
    if step not in READING:
        _import_what_a_driver_imports()
    from tests.benchmarks.scale_steps import STEPS

    requests = _count_requests() if folder_uri.startswith("s3://") else {}
    before_mb, wall_s, cpu_s = peak_mb(), time.perf_counter(), time.process_time()
    said = STEPS[step](folder_uri, source, output)
    return {
        "wall_s": time.perf_counter() - wall_s,
        "cpu_s": time.process_time() - cpu_s,
        "peak_mb": peak_mb(),
        "before_mb": before_mb,
        "said": said,
        "requests": requests,
    }


def _measure(step: str, num_images: int, folder_uri: str, source: str, output: str) -> None:
    command = [sys.executable, "-m", __spec__.name, "--step", step, "--folder", folder_uri]
    process = subprocess.run(
        [*command, "--source", source, "--output", output], cwd=REPOSITORY, capture_output=True, text=True
    )
    if process.returncode:
        sys.exit(f"step {step} failed:\n{process.stderr}")
    found = json.loads(process.stdout.splitlines()[-1])
    print(
        f"{step:<16}{num_images:>9}{found['wall_s']:>9.1f}{found['cpu_s']:>9.1f}{found['peak_mb']:>9.0f}"
        f"{found['before_mb']:>9.0f}  {_in_words(found['said'])}  {_in_words(found['requests'])}",
        flush=True,
    )


def _in_words(numbers: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {number}" for name, number in numbers.items())


def _import_what_a_driver_imports() -> None:
    import pipeline.label_images
    import pipeline.run  # noqa: F401


def peak_mb() -> float:
    """Not `ru_maxrss`, which a process inherits from the one that started it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM:"))


def _count_requests() -> Counter[str]:
    """Of this process's S3 client, by operation; repeats after errors included."""
    from pipeline import s3_client

    counts: Counter[str] = Counter()

    def count(request: Any, event_name: str, **_: Any) -> None:
        counts[event_name.rpartition(".")[2]] += 1

    for client in (s3_client.reader(), s3_client.writer()):
        client.meta.events.register("before-send.s3", count)
    return counts


@contextlib.contextmanager
def _folder(arguments: argparse.Namespace) -> Iterator[tuple[str, str]]:
    with tempfile.TemporaryDirectory(prefix="labelmill-scale-", dir=arguments.folder or None) as local_folder:
        if arguments.store == "local":
            yield local_folder, local_folder
            return
        from tests import s3

        with s3.moto_server() as endpoint_url:
            os.environ.update(
                AWS_ENDPOINT_URL=endpoint_url,
                AWS_ACCESS_KEY_ID="testing",
                AWS_SECRET_ACCESS_KEY="testing",
                AWS_DEFAULT_REGION="us-east-1",
            )
            yield local_folder, s3.make_bucket(endpoint_url)


def _arguments(given: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=1_000_000, help="to plan: half of them done")
    parser.add_argument(
        "--finalized-images", type=int, default=200_000, help="to finalize and verify: all of them done"
    )
    parser.add_argument("--files", type=int, default=200_000, help="to list, as empty files of this disk")
    parser.add_argument("--store", choices=("local", "s3"), default="local")
    parser.add_argument("--folder", default="", help="where the temporary folder is made")
    parser.add_argument("--step", default="", help=argparse.SUPPRESS)
    parser.add_argument("--source", default="", help=argparse.SUPPRESS)
    parser.add_argument("--output", default="", help=argparse.SUPPRESS)
    return parser.parse_args(given)


if __name__ == "__main__":
    main()
