"""docs/metrics.md lists the metrics as the code has them."""

import re

from pipeline.metric_names import METRICS, Metric
from tests.command import REPOSITORY

DOCUMENT = (REPOSITORY / "docs" / "metrics.md").read_text()


def row_of(metric: Metric) -> str:
    tags = ", ".join(f"`{tag}`" for tag in metric.tags)
    return " | ".join(filter(None, [f"| `{metric.exported_name}`", tags])) + f" | {'' if tags else '| '}{metric.help} |"


def test_table_lists_every_metric_with_its_labels_and_meaning_in_the_order_of_the_code():
    rows = [line for line in DOCUMENT.splitlines() if line.startswith("| `ray_")]
    assert rows == [row_of(metric) for metric in METRICS]


def test_every_metric_that_the_text_speaks_of_exists():
    named = set(re.findall(r"`((?:engine|stage)_\w+)`", DOCUMENT))
    assert len(named) >= 9
    assert named <= {metric.name.removeprefix("labelmill_") for metric in METRICS}
