"""What a job's accounts hold in memory does not grow with the shards of its manifest; `scale` measures real sizes."""

import functools
import os
import subprocess
import sys
import tracemalloc

import pyarrow as pa
import pytest

from pipeline import parts, run_listing, table_walk, unchanged, work
from pipeline.manifest import write_manifest
from pipeline.new_rows import NewRows
from pipeline.pending import Wanted
from pipeline.report.facts import Facts
from pipeline.report.page import write_report
from pipeline.report.rows import OpenRun
from pipeline.run import run_job
from pipeline.status import status
from pipeline.verify import verify
from tests.benchmarks import report_data, scale, scale_data, scale_steps
from tests.pipeline.outputs import job_of, resolve

ROWS_PER_SHARD = 1_000
FEW, MANY = 3, 12
"""Shards."""

MAX_ID_BYTES = 64
"""Of an image's id in `verify`: 16, twice while sorted, and as much again of what numpy needs on the way."""

MORE_ROW_GROUPS_BYTES = 32_000
"""What the footer of a part says of each of its columns, for each of its groups of ten thousand rows."""


@pytest.fixture(scope="module")
def outputs(tmp_path_factory):
    """By its number of shards, an output that is labelled and finalized, and the job that made it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(run_listing, "write_manifest", functools.partial(write_manifest, rows_per_shard=ROWS_PER_SHARD))
        patch.setattr(os, "fsync", lambda fd: None)
        patch.setattr(parts, "ROWS_PER_GROUP", ROWS_PER_SHARD // 4)
        yield {num_shards: finished(tmp_path_factory.mktemp("scale"), num_shards) for num_shards in (FEW, MANY)}


def finished(folder, num_shards):
    scale_data.put_table_of_uris(str(folder), num_shards * ROWS_PER_SHARD, row_group_rows=ROWS_PER_SHARD // 4)
    job = job_of(folder / "images.parquet", folder / "out", ["ocr"])
    to_do = resolve(job)
    assert len(to_do.shards) == num_shards
    scale_data.label_pending(to_do, rows_per_block=ROWS_PER_SHARD)
    run_job(job)
    return job


def peak_bytes(call):
    """Of Python and numpy, and of Arrow's tables."""
    before = pa.default_memory_pool()
    pool = pa.proxy_memory_pool(before)
    pa.set_memory_pool(pool)
    tracemalloc.start()
    try:
        call()
        return tracemalloc.get_traced_memory()[1] + pool.max_memory()
    finally:
        tracemalloc.stop()
        pa.set_memory_pool(before)


def peaks(outputs, call):
    """With few shards and with many; a call before them fills what is filled once."""
    call(outputs[FEW])
    return [peak_bytes(functools.partial(call, outputs[num_shards])) for num_shards in (FEW, MANY)]


def test_memory_of_planning_does_not_grow_with_the_shards(outputs):
    def plan(job):
        to_do = resolve(job, list_source=False)
        assert not any(to_do.folder.has_pending(shard, to_do.wanted) for shard in to_do.shards)

    few, many = peaks(outputs, plan)
    assert many < 1.2 * few


def test_memory_of_listing_pending_rows_does_not_grow_with_the_shards(outputs):
    def list_pending(job):
        to_do = resolve(job, list_source=False)
        wanted = Wanted(recipe_digests={**to_do.recipe_digests, "caption": "another"})
        batches = (rows for shard in to_do.shards for rows in to_do.folder.pending(shard, wanted))
        assert sum(len(rows) for rows in batches) == to_do.num_images

    few, many = peaks(outputs, list_pending)
    assert many < 1.2 * few


def test_memory_of_finding_new_rows_does_not_grow_with_the_shards(outputs):
    def find(job):
        inspected = work.inspect(job)
        run = inspected.folder.get_json("run.json")
        uris = [[inspected.folder.shard_uri(shard) for shard in shards] for shards in run["shards_by_run"]]
        assert not list(NewRows(inspected.source, uris).rows())

    few, many = peaks(outputs, find)
    assert many < 1.2 * few


def test_memory_of_the_status_does_not_grow_with_the_shards(outputs):
    few, many = peaks(outputs, lambda job: status(job.output.uri))
    assert many < 1.2 * few


def test_memory_of_verify_grows_by_the_ids_of_images_and_by_nothing_else(outputs, monkeypatch):
    """What is read at once is made small: at this size it would hide the rest."""
    monkeypatch.setattr(unchanged, "_PIECE_BYTES", 1 << 14)
    monkeypatch.setattr(table_walk, "WINDOW_ROWS", ROWS_PER_SHARD // 4)

    def check(job):
        assert verify(job.output.uri).problems == []

    few, many = peaks(outputs, check)
    of_ids = (MANY - FEW) * ROWS_PER_SHARD * MAX_ID_BYTES
    assert many - few < of_ids + MORE_ROW_GROUPS_BYTES


def test_memory_of_the_report_does_not_grow_with_the_shards(outputs):
    def count(job):
        run, facts = OpenRun.at(job.output.uri), Facts(num_samples=120)
        for shard in run.shards:
            for table, rows in run.rows(shard, run.settled(shard)):
                facts.add(table, rows)
        assert facts.num_rows.total() == len(run.shards) * ROWS_PER_SHARD
        assert len(facts.chosen()) == 120

    few, many = peaks(outputs, count)
    assert many < 1.2 * few


def test_what_is_large_is_imported_only_where_it_is_used():
    """Ray is 130 MB of a driver; torch would be 210, and its compiler and sympy another 75."""
    program = """
import sys
import pipeline.status, pipeline.verify
print(sorted({"torch", "ray", "boto3"} & set(sys.modules)))
import pipeline.run, pipeline.label_images
from model.checkpoint_files import NANO_FOLDER
from pipeline.checkpoint_check import check_checkpoint
check_checkpoint(NANO_FOLDER)
print(sorted({"torch", "ray"} & set(sys.modules)))
from model import checkpoint
checkpoint.check("nano")
print(sorted({"torch", "torch._dynamo", "sympy"} & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", program], cwd=scale.REPOSITORY, capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "['ray']", "['torch']"], done.stderr


def test_every_step_of_the_benchmark_runs_and_what_they_say_agrees(tmp_path, monkeypatch):
    monkeypatch.setattr(scale_steps, "without_fsync", lambda: None)
    scale_data.put_table_of_uris(str(tmp_path), 64)
    scale_data.make_empty_files(str(tmp_path), 48)

    def said(steps, source, output):
        return [scale_steps.STEPS[step](str(tmp_path), source, output) for step in steps]

    assert said(scale.PLANNING, "images.parquet", "planned") == [
        {"images": 64, "shards": 1},
        {"commits": 2},
        {"new images": 0, "unsettled shards": 1, "pending": True},
        {"pending images": 32},
        {"images": 64, "pending pairs": 128},
    ]
    blocks, first, second, verified = said(scale.FINALIZING, "images.parquet", "finalized")
    assert blocks == {"blocks": 4}
    assert "finalizing_s" in first
    assert "finalizing_s" not in second
    assert verified == {"images": 64, "rows": 320, "problems": 0}
    assert said(scale.LISTING, "files", "of-files")[0] == {"images": 48, "shards": 1}


def test_output_that_the_benchmark_of_the_report_makes_can_be_reported(tmp_path, monkeypatch):
    monkeypatch.setattr(report_data, "without_fsync", lambda: None)
    made = report_data.make_output(str(tmp_path), 600)
    assert made == {"images": 120, "shards": 1, "tables": 5}
    written = write_report(os.path.join(tmp_path, report_data.OUTPUT), max_images=20)
    # An image in a hundred is quarantined: four rows, one for each recipe, where others have five labels.
    assert (written.num_rows, written.num_cards, written.num_without_picture) == (600 - 2, 20, 2)
