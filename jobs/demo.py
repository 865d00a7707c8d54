"""`labelmill demo`: real files -> an S3 store on loopback -> Ray -> a dataset in a local folder, in one command."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq

from jobs.demo_images import NUM_PICTURES, draw_scenes, draw_unseen, write_broken_files
from jobs.demo_sheet import draw_sheet
from jobs.demo_truth import judge, queries_of, questions_of, true_lines
from jobs.exit_codes import EXIT_FAILED
from jobs.job_file import read_job
from jobs.run import exit_code, run_with_progress
from jobs.summary_table import print_summary
from model.nano.scenes import Scene
from pipeline.output_names import REPORT_FILE
from pipeline.report.page import write_report
from pipeline.storage import canonical_uri, join_uri, open_store
from pipeline.verify import verify

BUCKET = "labelmill-demo"
MARKER = ".labelmill-demo"
STARTUP_TIMEOUT_S = 60

SCENES_FILE, SHEET_FILE = "scenes.parquet", "labels.png"

_SCENES_JOB = f"""
name: demo
source: s3://{BUCKET}/images/{SCENES_FILE}
checkpoint: nano
recipes:
  - {{name: ocr, max_new_tokens: 128}}
  - {{name: caption, hints: [ocr], max_new_tokens: 64}}
  - {{name: grounding, queries_from: queries, max_new_tokens: 96}}
  - {{name: qa, questions_from: questions, max_new_tokens: 32}}
output: s3://{BUCKET}/labels
limits: {{max_quarantined_fraction: 0.5}}   # four of the files are broken on purpose
"""

_OWN_IMAGES_JOB = f"""
name: demo
source: s3://{BUCKET}/images/
checkpoint: nano
recipes:
  - {{name: ocr, max_new_tokens: 128}}
  - {{name: caption, hints: [ocr], max_new_tokens: 64}}
  - {{name: grounding, queries: ["the red circle", "the sign"], max_new_tokens: 96}}
  - {{name: qa, questions: ["How many shapes are there?", "What does the sign say?"], max_new_tokens: 32}}
output: s3://{BUCKET}/labels
limits: {{max_quarantined_fraction: 0.5}}
"""


def run_demo(*, out: Path, images: Path | None, num_scenes: int | None, seed: int, as_json: bool) -> int:
    """Returns the exit code. `out` is replaced if an earlier demo made it, and refused if anything else is there.

    Args:
        num_scenes: scores that many scenes of `seed`, instead of showing two dozen and some broken files.
    """
    job = read_job(_SCENES_JOB if images is None else _OWN_IMAGES_JOB)
    _make_empty(out)
    with tempfile.TemporaryDirectory(prefix="labelmill-images-") as temp, _s3_server():
        folder, scenes = _inputs(images, num_scenes, seed, Path(temp))
        num_files = _upload(folder, f"s3://{BUCKET}/images")
        print(f"{num_files} files put into s3://{BUCKET}/images on this machine")
        summary = run_with_progress(job)
        found = verify(job.output.uri)
        _download(job.output.uri, out)
        # While the images can still be fetched.
        write_report(job.output.uri, out=canonical_uri(str(out / REPORT_FILE)))
    print_summary({**summary, "output": str(out.resolve())})
    print(f"verified: {found.num_images} images, {found.num_problems} problems")
    if scenes:
        _print_truth(out, scenes)
    else:
        print(
            "note: nano knows drawn shapes and printed words; of photographs it says what it knows, not what is there"
        )
    print(f'open it: datasets.load_dataset("parquet", data_files="{out}/captions/*.parquet")')
    print(f"see what it did, in a browser: {out.resolve() / REPORT_FILE}")
    if as_json:
        print(json.dumps({**summary, "output": str(out.resolve())}, ensure_ascii=False))
    return EXIT_FAILED if found.num_problems else exit_code(job, summary)


def _print_truth(out: Path, scenes: dict[str, Scene]) -> None:
    judgement = judge(out, scenes)
    print("true labels, of scenes that nano was not trained on:")
    for line in [*true_lines(judgement), *(judgement.scores.lines() if len(scenes) > NUM_PICTURES else [])]:
        print(f"  {line}")
    shown = dict(list(scenes.items())[:NUM_PICTURES])
    draw_sheet(out / SHEET_FILE, shown, judgement.labels)
    print(f"look at them: {out / SHEET_FILE}")


def _make_empty(out: Path) -> None:
    if out.exists() and not (out / MARKER).exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"{out} is there already and no earlier demo made it: choose another folder with --out")
    if (out / MARKER).exists():
        shutil.rmtree(out)
    out.mkdir(parents=True, exist_ok=True)
    (out / MARKER).touch()


def _inputs(images: Path | None, num_scenes: int | None, seed: int, temp: Path) -> tuple[Path, dict[str, Scene]]:
    """The folder to label, and what its pictures show where that is known."""
    if images is None:
        scenes = draw_scenes(temp) if num_scenes is None else draw_unseen(temp, seed=seed, count=num_scenes)
        broken = write_broken_files(temp / "broken") if num_scenes is None else []
        _write_table(temp / SCENES_FILE, temp, scenes, broken, per_scene=2 if num_scenes is None else 6)
        return temp, scenes
    if not images.is_dir():
        raise ValueError(f"--images {images} is not a folder")
    return images, {}


def _write_table(path: Path, folder: Path, scenes: dict[str, Scene], broken: list[Path], *, per_scene: int) -> None:
    """One row a file: its place beside the table, and up to so many questions and queries about it."""
    rows = [
        {"image": name, "questions": questions_of(scene, per_scene), "queries": queries_of(scene, per_scene)}
        for name, scene in scenes.items()
    ]
    rows += [
        {"image": file.relative_to(folder).as_posix(), "questions": ["What is this?"], "queries": ["the sign"]}
        for file in broken
    ]
    pq.write_table(pa.Table.from_pylist(rows), path)


def _upload(folder: Path, uri: str) -> int:
    store = open_store(uri)
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    for path in files:
        store.put(join_uri(uri, path.relative_to(folder).as_posix()), path.read_bytes())
    return len(files)


def _download(uri: str, out: Path) -> None:
    store = open_store(uri)
    for info in store.list(uri):
        path = out / info.uri.removeprefix(f"{uri}/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(store.get(info.uri))


@contextlib.contextmanager
def _s3_server() -> Iterator[None]:
    """moto's S3 server as a process of its own; the environment points to it while it runs."""
    port = _free_port()
    endpoint = f"http://127.0.0.1:{port}"
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    settings = {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "demo",
        "AWS_SECRET_ACCESS_KEY": "demo",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    # Whatever else the user has set there must not reach into the demo.
    saved = {name: os.environ.pop(name) for name in list(os.environ) if name.startswith("AWS_")}
    # The server writes a line per request to it: a pipe that nobody reads would fill and stop the server.
    with tempfile.TemporaryFile() as log:
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=log)
        try:
            _make_bucket(server, endpoint, log)
            os.environ.update(settings)
            yield
        finally:
            for name in settings:
                os.environ.pop(name, None)
            os.environ.update(saved)
            server.terminate()
            server.wait()


def _make_bucket(server: "subprocess.Popen[bytes]", endpoint: str, log: IO[bytes]) -> None:
    """Waits for the server by asking for the bucket until it answers."""
    deadline = time.monotonic() + STARTUP_TIMEOUT_S
    while True:
        if server.poll() is not None:
            log.seek(0)
            reason = (log.read().decode(errors="replace").strip().splitlines() or ["no message"])[-1]
            raise RuntimeError(f"the demo's S3 server did not start ({reason}): pip install 'moto[server]'")
        try:
            urllib.request.urlopen(urllib.request.Request(f"{endpoint}/{BUCKET}", method="PUT"), timeout=5).close()
            return
        except (urllib.error.URLError, OSError) as error:
            if time.monotonic() > deadline:
                raise RuntimeError(f"the demo's S3 server did not answer at {endpoint}: {error}") from None
            time.sleep(0.2)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
