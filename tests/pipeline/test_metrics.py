"""Metrics outside of a run, names of metrics, and who may hold Ray's."""

import re
import subprocess
import sys

from pipeline.metric_names import IMAGES, JOB_TAG, METRICS, PENDING_IMAGES
from pipeline.metrics import Recorder
from tests.command import REPOSITORY

UNBOUNDED = {"uri", "image", "sample", "id", "message", "url", "path", "worker"}


def test_names_are_prometheus_names_with_the_prefix():
    for metric in METRICS:
        assert re.fullmatch(r"labelmill_[a-z]+(_[a-z]+)*", metric.name), metric.name
        assert not metric.name.endswith("_total"), "Ray adds it to counters"
        assert metric.help.endswith("."), metric.name
    assert len({metric.name for metric in METRICS}) == len(METRICS)


def test_exported_name_of_a_counter_ends_in_total_and_that_of_a_gauge_does_not():
    assert IMAGES.exported_name == "ray_labelmill_images_total"
    assert PENDING_IMAGES.exported_name == "ray_labelmill_pending_images"


def test_no_metric_has_a_tag_without_bound():
    for metric in METRICS:
        assert JOB_TAG not in metric.tags
        assert not UNBOUNDED & set(metric.tags), metric.name


def test_without_ray_nothing_is_counted_and_nothing_fails():
    recorder = Recorder()
    recorder.start("photos")
    recorder.add(IMAGES, 3, outcome="labelled")
    recorder.set(PENDING_IMAGES, 5)
    recorder.stop()
    assert vars(recorder)["_instruments"] == {}


def test_module_of_the_metrics_imports_no_ray():
    code = "import sys, pipeline.metrics, pipeline.recipes; print(sorted({'ray', 'torch'} & sys.modules.keys()))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY, check=True)
    assert done.stdout.strip() == "[]"


def test_metrics_of_ray_are_held_by_one_file():
    sources = [path for folder in ("jobs", "pipeline", "schemas") for path in (REPOSITORY / folder).rglob("*.py")]
    held = re.compile(r"^\s*(from|import) ray\.util\.metrics", re.MULTILINE)
    assert [path.name for path in sources if held.search(path.read_text())] == ["metrics.py"]
