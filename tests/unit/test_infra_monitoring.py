"""infra/monitoring/: queries that parse, about metrics that TensorFlow Serving has; alerts and dashboard are whole."""

from __future__ import annotations

import copy
import json
import re
from typing import TYPE_CHECKING, Any

import promql_parser
import pytest

from tests import infra_manifests as manifests

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

MONITORING = manifests.INFRA / "monitoring"
METRICS: Mapping[str, set[str]] = {
    "up": {"job", "instance"},
    ":tensorflow:serving:request_count": {"model_name", "status"},
    ":tensorflow:serving:request_latency": {"model_name", "API", "entrypoint"},
    ":tensorflow:serving:runtime_latency": {"model_name", "API", "runtime"},
    ":tensorflow:serving:batching_session:queuing_latency": {"thread_pool_name"},
    ":tensorflow:cc:saved_model:load_attempt_count": {"model_path", "status"},
}
"""Name → labels, as TensorFlow Serving and TensorFlow declare them (monitoring::Counter and Sampler)."""


def alert_groups() -> list[dict[str, Any]]:
    (document,) = manifests.read_yaml(MONITORING / "alerts.yml")
    groups: list[dict[str, Any]] = document["groups"]
    return groups


def dashboard() -> dict[str, Any]:
    document: dict[str, Any] = json.loads((MONITORING / "grafana" / "tensorflow-serving.json").read_text())
    return document


def selectors(expression: Any) -> Iterator[Any]:
    """Return every vector selector of a parsed query."""
    if isinstance(expression, promql_parser.VectorSelector):
        yield expression
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        child = getattr(expression, name, None)
        if child is not None:
            yield from selectors(child)
    for child in getattr(expression, "args", None) or ():
        yield from selectors(child)


def query_faults(query: str) -> list[str]:
    # Grafana puts its own variables in before it asks.
    text = query.replace("$__rate_interval", "1m").replace("$model", ".*")
    try:
        parsed = promql_parser.parse(text)
    except ValueError as error:
        return [f"{query}: {error}"]
    found = list(selectors(parsed))
    faults = [] if found else [f"{query}: no metric"]
    for selector in found:
        name = re.sub(r"_(bucket|sum|count)$", "", selector.name) if selector.name not in METRICS else selector.name
        labels = {matcher.name for matcher in selector.matchers.matchers}
        if name not in METRICS:
            faults.append(f"{query}: unknown metric {selector.name}")
        elif unknown := labels - METRICS[name] - {"instance", "job"}:
            faults.append(f"{query}: {selector.name} has no label {unknown}")
    return faults


def alert_faults(groups: list[dict[str, Any]]) -> list[str]:
    faults = []
    for group in groups:
        for rule in group["rules"]:
            faults += query_faults(rule["expr"])
            wanted = {"alert", "expr", "labels", "annotations"}
            if not wanted <= rule.keys() or not {"summary", "description"} <= rule["annotations"].keys():
                faults.append(f"{rule.get('alert')}: expected {wanted} with summary and description")
            if rule.get("labels", {}).get("severity") not in {"page", "ticket"}:
                faults.append(f"{rule.get('alert')}: severity")
            if "for" in rule and not re.fullmatch(r"\d+[smh]", rule["for"]):
                faults.append(f"{rule['alert']}: for {rule['for']}")
    names = [rule.get("alert") for group in groups for rule in group["rules"]]
    return faults + [f"{name} twice" for name in set(names) if names.count(name) > 1]


def dashboard_faults(document: dict[str, Any]) -> list[str]:
    (datasources,) = manifests.read_yaml(MONITORING / "grafana" / "datasources.yml")
    known = {one["uid"] for one in datasources["datasources"]}
    faults, taken, ids = [], set(), set()
    for panel in document["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        if cells & taken or panel["id"] in ids or place["x"] + place["w"] > 24:
            faults.append(f"{panel['title']}: overlaps, leaves the grid, or has another's id")
        taken |= cells
        ids.add(panel["id"])
        for target in panel["targets"]:
            faults += query_faults(target["expr"])
            if target["datasource"]["uid"] not in known:
                faults.append(f"{panel['title']}: data source {target['datasource']}")
    variables = {one["name"] for one in document["templating"]["list"]}
    used = set(re.findall(r"\$(\w+)", json.dumps(document["panels"]))) - {"__rate_interval"}
    return faults + [f"variable {name}" for name in used - variables]


def test_alerts():
    assert alert_faults(alert_groups()) == []


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("expr", "sum(rate(:tensorflow:serving:request_count[5m])"),
        ("expr", "rate(:tensorflow:serving:requests[5m]) > 0"),
        ("expr", 'rate(:tensorflow:serving:request_count{model="a"}[5m]) > 0'),
        ("for", "soon"),
        ("labels", {"severity": "loud"}),
        ("annotations", {"summary": "?"}),
        ("alert", "ModelServerSlow"),
    ],
)
def test_a_changed_alert_is_found_out(field, value):
    groups = copy.deepcopy(alert_groups())
    groups[0]["rules"][0][field] = value
    assert alert_faults(groups)


def test_dashboard():
    assert dashboard_faults(dashboard()) == []


def test_a_changed_dashboard_is_found_out():
    for change in (
        lambda panel: panel["targets"][0].update(expr="sum(:tensorflow:serving:latency)"),
        lambda panel: panel["targets"][0]["datasource"].update(uid="other"),
        lambda panel: panel["gridPos"].update(x=0, y=0),
        lambda panel: panel["targets"][0].update(expr='up{job="$tenant"}'),
    ):
        document = copy.deepcopy(dashboard())
        change(document["panels"][3])
        assert dashboard_faults(document)


def test_the_embedded_server_has_these_metrics():
    metrics = pytest.importorskip("serving.model_server.metrics")
    page = metrics.page()
    assert [name for name in METRICS if name != "up" and f"# TYPE {name} " not in page] == []


def test_prometheus_scrapes_the_page_that_the_server_is_told_to_have():
    (config,) = manifests.read_yaml(MONITORING / "prometheus.yml")
    (job,) = config["scrape_configs"]
    monitoring = (manifests.INFRA / "docker" / "tensorflow-serving" / "monitoring.config").read_text()
    assert f'path: "{job["metrics_path"]}"' in monitoring
    (discovery,) = job["dns_sd_configs"]
    assert discovery["names"] == ["tensorflow-serving"]
    server = manifests.compose()["services"]["tensorflow-serving"]
    assert f"--rest_api_port={discovery['port']}" in server["command"]
    pod = manifests.of_kind(manifests.kubernetes(), "Deployment")["tensorflow-serving"]["spec"]["template"]
    assert pod["metadata"]["annotations"]["prometheus.io/path"] == job["metrics_path"]
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(discovery["port"])
    assert config["rule_files"] == ["alerts.yml"]
