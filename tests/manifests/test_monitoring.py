"""Every metric of the rules and the dashboard is one that the gateway or TorchServe exports."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
from built import built, of_kind
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

import serving.gateway.metrics
from serving.torchserve.figures import METRICS

NAME = re.compile(r"\b(slicewise_\w+)")
# kube-state-metrics' own.
OUTSIDE = {"kube_deployment_status_replicas_ready", "kube_deployment_spec_replicas"}
MAKERS = {"counter": Counter, "gauge": Gauge, "histogram": Histogram}


def expressions() -> list[str]:
    objects = built("monitoring")
    rules = [rule for rule in of_kind(objects, "PrometheusRule")[0]["spec"]["groups"] for rule in rule["rules"]]
    dashboard: dict[str, Any] = json.loads(of_kind(objects, "ConfigMap")[0]["data"]["slicewise.json"])
    queries = [target["expr"] for panel in dashboard["panels"] for target in panel["targets"]]
    return [rule["expr"] for rule in rules] + queries


def series(text: str) -> set[str]:
    """Names of the samples that a family with these declarations has."""
    found = set()
    for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", text, re.M):
        found |= {f"{name}_bucket", f"{name}_sum", f"{name}_count"} if kind == "histogram" else {name}
    return found


def exported() -> set[str]:
    registry = CollectorRegistry()
    for metric in METRICS:
        labels = ("ModelName", metric.label) if metric.label else ("ModelName",)
        MAKERS[metric.kind](metric.name, metric.text, labels, registry=registry)
    for collector in vars(serving.gateway.metrics).values():
        if isinstance(collector, Counter | Gauge | Histogram):
            registry.register(collector)
    return series(generate_latest(registry).decode())


def test_rules_and_dashboard_name_only_exported_metrics() -> None:
    text = " ".join(expressions())
    names = set(NAME.findall(text))
    assert len(names) > 10
    assert names <= exported()
    assert set(re.findall(r"\bkube_\w+", text)) == OUTSIDE


def test_every_alert_says_what_to_do() -> None:
    groups = of_kind(built("monitoring"), "PrometheusRule")[0]["spec"]["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    assert len(alerts) >= 6
    for alert in alerts:
        assert alert["annotations"].keys() == {"summary", "description"}
        assert alert["labels"]["severity"] in ("warning", "critical")


@pytest.mark.parametrize("monitor", ["slicewise-gateway", "slicewise-predictor"])
def test_monitors_name_ports_that_the_pods_have(monitor: str) -> None:
    found = {item["metadata"]["name"]: item["spec"] for item in of_kind(built("monitoring"), "PodMonitor")}
    objects = built("minimal")
    holder = "ServingRuntime" if monitor.endswith("predictor") else "InferenceService"
    spec = of_kind(objects, holder)[0]["spec"]
    container = (spec if holder == "ServingRuntime" else spec["transformer"])["containers"][0]
    ports = {port["name"] for port in container["ports"]}
    assert {endpoint["port"] for endpoint in found[monitor]["podMetricsEndpoints"]} <= ports
