"""What Prometheus would scrape during a run: every series that alerts and dashboard read, with the run's numbers."""

import json
import subprocess
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.samples import Sample
from ray.cluster_utils import Cluster

from pipeline import metric_names as names
from pipeline.metric_names import JOB_TAG, METRICS, Metric
from tests.command import COMMAND, write_job
from tests.infra.promql import expressions, series_of

pytestmark = pytest.mark.e2e

NUM_IMAGES = 11
TABLES = {"ocr": "ocr", "caption": "captions"}


@pytest.fixture
def node(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The URL that Ray's agent on the only node of a cluster is scraped at."""
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setenv("RAY_metrics_report_interval_ms", "1000")
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    try:
        monkeypatch.setenv("RAY_ADDRESS", cluster.address)
        head = cluster.head_node
        yield f"http://{head.node_ip_address}:{head.metrics_export_port}/metrics"
    finally:
        cluster.shutdown()


def scrape(url: str) -> list[Sample]:
    text = urllib.request.urlopen(url, timeout=30).read().decode()
    return [sample for family in text_string_to_metric_families(text) for sample in family.samples]


def put_source(folder: Path) -> Path:
    """One image of it is broken. `caption` sends back what was cut off, which every answer of a few tokens is."""
    folder.mkdir()
    (folder / "broken.png").write_bytes(b"no image")
    for index in range(NUM_IMAGES - 1):
        Image.new("RGB", (120 + index, 90), (20 * index, 60, 60)).save(folder / f"{index:02d}.png")
    return folder


def counted(samples: list[Sample], metric: Metric) -> dict[tuple[str, ...], int]:
    """By the metric's tags, over all workers."""
    sums: Counter[tuple[str, ...]] = Counter()
    for sample in samples:
        if sample.name == metric.exported_name:
            assert sample.labels[JOB_TAG] == "nightly"
            sums[tuple(sample.labels[tag] for tag in metric.tags)] += int(sample.value)
    return dict(sums)


def test_series_of_alerts_and_dashboard_are_scraped_during_a_run_and_agree_with_its_summary(tmp_path, node):
    job = write_job(
        tmp_path,
        name="nightly",
        source=str(put_source(tmp_path / "in")),
        output=str(tmp_path / "out"),
        recipes=[{"name": name, "max_new_tokens": 6} for name in TABLES],
        limits={"max_quarantined_fraction": 0.5},
    )
    scraped: set[str] = set()
    process = subprocess.Popen(
        [COMMAND, "run", job, "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    while process.poll() is None:
        scraped |= {sample.name for sample in scrape(node)}
        time.sleep(0.5)
    stdout, stderr = process.communicate()
    assert process.returncode == 0, stderr

    read = {series.name for text in expressions() for series in series_of(text)}
    assert sorted((read | {metric.exported_name for metric in METRICS}) - scraped) == []

    # Workers report what they have counted when they end.
    summary, samples = json.loads(stdout.splitlines()[-1]), scrape(node)
    this_run = summary["this_run"]
    assert counted(samples, names.IMAGES) == {
        ("labelled",): this_run["num_images"] - this_run["num_quarantined_images"],
        ("quarantined",): this_run["num_quarantined_images"],
    }
    assert this_run["num_images"] == NUM_IMAGES
    quarantine = pq.read_table(tmp_path / "out" / "quarantine")
    pairs = zip(quarantine["recipe"].to_pylist(), quarantine["error_kind"].to_pylist(), strict=True)
    assert counted(samples, names.QUARANTINED) == Counter(pairs)
    assert len(quarantine) == len(TABLES)
    written = {(recipe,): pq.read_table(tmp_path / "out" / table) for recipe, table in TABLES.items()}
    assert counted(samples, names.LABELS) == {recipe: table.num_rows for recipe, table in written.items()}
    for metric, column in ((names.PROMPT_TOKENS, "num_prompt_tokens"), (names.OUTPUT_TOKENS, "num_output_tokens")):
        assert counted(samples, metric) == {recipe: sum(table[column].to_pylist()) for recipe, table in written.items()}
    redecodes, answers = counted(samples, names.REDECODES), counted(samples, names.ANSWERS)
    for recipe in TABLES:
        sent_back = sum(num for (name, _), num in redecodes.items() if name == recipe)
        assert answers[(recipe,)] == written[(recipe,)].num_rows + sent_back
    assert redecodes["caption", "truncated"] > 0
    assert counted(samples, names.ENGINE_DECODE_TOKENS)[()] > 0
    num_bytes = sum(path.stat().st_size for path in (tmp_path / "in").iterdir())
    assert counted(samples, names.FETCHED_BYTES) == {(): num_bytes}
    stages = counted(samples, names.STAGE_BLOCKS)
    assert {stage for (stage,), num in stages.items() if num > 0} == {"list", "fetch", "tile", "label", "sink"}
