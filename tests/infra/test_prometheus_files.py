"""Rules, scrape configurations and the dashboard are well formed, and ask for metrics that there are."""

import json
import shutil
import subprocess

import pytest
import yaml

from pipeline.metric_names import JOB_TAG, METRICS
from tests.infra.promql import DASHBOARD, PROMETHEUS, Read, alerts, expressions, panels, series_of

PROMTOOL = shutil.which("promtool")
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")


@pytest.mark.parametrize(
    ("expression", "series"),
    [
        ('sum by (job) (rate(a_total{job="x", kind=~"y|z"}[5m])) / b', {"a_total": {"job", "kind"}, "b": set()}),
        ("time() - max_over_time(a_b:c[7d]) > 26 * 3600", {"a_b:c": set()}),
        ("a and on (x) b unless ignoring (y) group_left (z) c", {"a": set(), "b": set(), "c": set()}),
        ('a{b="and c{d"} == 0', {"a": {"b"}}),
    ],
)
def test_series_are_told_from_functions_operators_and_labels(expression: str, series: dict[str, set[str]]):
    assert series_of(expression) == {Read(name, frozenset(labels)) for name, labels in series.items()}


def test_every_metric_of_ours_that_is_asked_for_exists_with_the_labels_that_are_asked_for():
    tags = {metric.exported_name: {JOB_TAG, *metric.tags} for metric in METRICS}
    asked = [read for text in expressions() for read in series_of(text) if read.name.startswith("ray_labelmill_")]
    assert [read for read in asked if read.name not in tags or not read.labels <= tags[read.name]] == []


def test_every_metric_of_ours_is_shown_in_the_dashboard():
    shown = {read.name for panel in panels() for target in panel["targets"] for read in series_of(target["expr"])}
    assert [metric.exported_name for metric in METRICS if metric.exported_name not in shown] == []


def test_every_alert_says_how_bad_it_is_and_what_to_do():
    for rule in alerts():
        assert rule["labels"]["severity"] in ("critical", "warning"), rule["alert"]
        assert {"summary", "description"} <= rule["annotations"].keys(), rule["alert"]
    names = [rule["alert"] for rule in alerts()]
    assert len(set(names)) == len(names)


def test_every_alert_is_explained_in_the_readme():
    readme = (PROMETHEUS / "README.md").read_text()
    assert [rule["alert"] for rule in alerts() if f"`{rule['alert']}`" not in readme] == []


def test_every_alert_has_a_test_in_which_it_fires():
    tests = yaml.safe_load((PROMETHEUS / "alerts_test.yml").read_text())["tests"]
    expected = [
        sample["labels"] for test in tests for one in test.get("promql_expr_test", ()) for sample in one["exp_samples"]
    ]
    assert [rule["alert"] for rule in alerts() if not any(f'"{rule["alert"]}"' in labels for labels in expected)] == []


@pytest.mark.parametrize("name", ["prometheus.yml", "prometheus-kubernetes.yml"])
def test_scrape_configuration_loads_the_alerts(name: str):
    config = yaml.safe_load((PROMETHEUS / name).read_text())
    assert config["rule_files"] == ["alerts.yml"]
    (scraped,) = config["scrape_configs"]
    assert scraped["job_name"].startswith("ray")


def test_panels_have_an_id_of_their_own_a_unit_and_a_description():
    everything = json.loads(DASHBOARD.read_text())["panels"]
    ids = [panel["id"] for panel in everything]
    assert len(set(ids)) == len(ids)
    for panel in panels():
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"], panel["title"]


def test_panels_do_not_lie_over_each_other():
    taken: dict[tuple[int, int], str] = {}
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24, panel["title"]
        for cell in (
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        ):
            assert cell not in taken, (panel["title"], taken[cell])
            taken[cell] = panel["title"]


def test_rows_of_the_dashboard_are_in_order():
    everything = json.loads(DASHBOARD.read_text())["panels"]
    rows = [panel["title"] for panel in everything if panel["type"] == "row"]
    assert rows == ["Progress", "Throughput", "Quality", "Engine", "Cluster"]


def test_source_of_the_data_is_a_variable():
    dashboard = json.loads(DASHBOARD.read_text())
    assert ("datasource", "datasource") in [(one["name"], one["type"]) for one in dashboard["templating"]["list"]]
    asked = [source["datasource"] for panel in panels() for source in (panel, *panel["targets"])]
    assert {source["uid"] for source in asked} == {"${datasource}"}


@needs_promtool
@pytest.mark.parametrize(
    "arguments",
    [("check", "config", "prometheus.yml"), ("check", "rules", "alerts.yml"), ("test", "rules", "alerts_test.yml")],
)
def test_promtool_agrees(arguments: tuple[str, ...]):
    done = subprocess.run([str(PROMTOOL), *arguments], cwd=PROMETHEUS, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_promtool_understands_every_expression_of_the_dashboard(tmp_path):
    rules = [{"record": f"panel:{number}", "expr": text} for number, text in enumerate(expressions())]
    (tmp_path / "rules.yml").write_text(json.dumps({"groups": [{"name": "dashboard", "rules": rules}]}))
    command = [str(PROMTOOL), "check", "rules", "rules.yml"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
