"""What scales, by what, and what Prometheus is told."""

from __future__ import annotations

import re
from typing import Any

import pytest
import yaml

from tests.helm.helm import REPOSITORY, render
from tests.helm.manifests import EVERYTHING, of_kind

SCALABLE = ("gateway", "selector", "arguments", "callcache", "engine")


def scaled(kind: str, **autoscaling: Any) -> list[dict[str, Any]]:
    return render({name: {"autoscaling": {"kind": kind, **autoscaling}} for name in SCALABLE})


def known_metrics() -> set[str]:
    """Metrics that our services and vLLM have, by their sources."""
    ours = {
        name
        for file in (REPOSITORY / "services").rglob("*.py")
        for name in re.findall(r'"(agentflux_\w+)"', file.read_text("utf-8"))
    }
    import importlib.util

    vllm = importlib.util.find_spec("vllm")
    assert vllm is not None
    assert vllm.submodule_search_locations
    loggers = f"{vllm.submodule_search_locations[0]}/v1/metrics/loggers.py"
    with open(loggers, encoding="utf-8") as source:
        return ours | set(re.findall(r'"(vllm:\w+)"', source.read()))


@pytest.mark.parametrize(("kind", "made"), [("hpa", "HorizontalPodAutoscaler"), ("keda", "ScaledObject")])
def test_what_is_scaled_has_no_number_of_pods_of_its_own(kind: str, made: str) -> None:
    objects = scaled(kind)
    autoscalers = of_kind(objects, made)
    assert set(autoscalers) == {f"agentflux-{name}" for name in SCALABLE}
    for name, each in autoscalers.items():
        target = each["spec"]["scaleTargetRef"]
        assert target["name"] == name
        assert "replicas" not in of_kind(objects, target["kind"])[name]["spec"]


def test_what_keeps_state_is_never_multiplied_by_the_defaults() -> None:
    objects = render({"defaults": {"replicas": 3, "autoscaling": {"kind": "hpa"}}})
    assert of_kind(objects, "Deployment")["agentflux-sandbox"]["spec"]["replicas"] == 1
    assert of_kind(objects, "StatefulSet")["agentflux-valkey"]["spec"]["replicas"] == 1
    assert not {"agentflux-sandbox", "agentflux-valkey"} & set(of_kind(objects, "HorizontalPodAutoscaler"))


def test_nothing_is_scaled_by_default() -> None:
    kinds = {each["kind"] for each in render()}
    assert not {"HorizontalPodAutoscaler", "ScaledObject", "ServiceMonitor", "PrometheusRule"} & kinds


def test_hpa_scales_by_processor_time_and_by_metrics_of_the_pods() -> None:
    autoscaler = of_kind(scaled("hpa", podMetrics={"agentflux_turns_waiting": "4"}), "HorizontalPodAutoscaler")[
        "agentflux-gateway"
    ]
    assert [each["type"] for each in autoscaler["spec"]["metrics"]] == ["Resource", "Pods"]


def test_keda_scales_by_metrics_that_exist_of_its_own_pods() -> None:
    known = known_metrics()
    for name, each in of_kind(scaled("keda"), "ScaledObject").items():
        for trigger in each["spec"]["triggers"]:
            query = trigger["metadata"]["query"]
            (metric,) = re.findall(r"(?:agentflux_|vllm:)\w+", query.replace(name, ""))
            assert metric.removesuffix("_bucket") in known
            assert f'{metric}{{namespace="agents",service="{name}"}}' in query


def test_gateway_and_engine_are_scaled_by_queue_and_latency() -> None:
    objects = of_kind(scaled("keda"), "ScaledObject")
    for name in ("gateway", "engine"):
        triggers = objects[f"agentflux-{name}"]["spec"]["triggers"]
        # A queue is shared by the pods; a latency is not.
        assert [(each["name"], each["metricType"]) for each in triggers] == [("queue", "AverageValue"), ("latency", "Value")]


def test_a_service_monitor_finds_the_metrics_of_every_service() -> None:
    objects = render(EVERYTHING)
    services, monitors = of_kind(objects, "Service"), of_kind(objects, "ServiceMonitor")
    spec = monitors["agentflux"]["spec"]
    scraped = {
        (name.removeprefix("agentflux-"), port["port"])
        for name, each in services.items()
        if spec["selector"]["matchLabels"].items() <= each["metadata"]["labels"].items()
        for port in each["spec"]["ports"]
        if port["name"] in {endpoint["port"] for endpoint in spec["endpoints"]}
    }
    assert scraped == {
        ("gateway", 8030), ("selector", 8031), ("arguments", 8032), ("callcache", 8033), ("engine", 8010), ("sandbox", 9034),
        ("trainer", 9036),
    }  # fmt: skip
    assert monitors["agentflux-vllm"]["spec"]["endpoints"][0]["path"] == "/metrics/vllm"
    # By what rules and boards tell releases apart.
    release = {"targetLabel": "agentflux", "replacement": "agents/agentflux"}
    assert all(release in endpoint["relabelings"] for each in monitors.values() for endpoint in each["spec"]["endpoints"])
    labels = {name: each["metadata"]["labels"]["app.kubernetes.io/component"] for name, each in services.items()}
    assert labels == {f"agentflux-{component}": component for component in labels.values()}


def test_dashboards_and_alerts_are_those_of_the_repository() -> None:
    objects = render(EVERYTHING)
    boards = {
        name for name, each in of_kind(objects, "ConfigMap").items() if each["metadata"]["labels"].get("grafana_dashboard") == "1"
    }
    sources = (REPOSITORY / "deploy" / "grafana" / "dashboards").glob("*.json")
    assert boards == {f"agentflux-dashboard-{source.stem}" for source in sources}
    rules = {f"agentflux-{source.stem}" for source in (REPOSITORY / "deploy" / "prometheus").glob("rules*.yaml")}
    assert set(of_kind(objects, "PrometheusRule")) == rules
    # In the cluster's Prometheus, which has the targets of others, they look at ours alone.
    text = (REPOSITORY / "deploy" / "prometheus" / "rules.yaml").read_text()
    narrowed = yaml.safe_load(text.replace('agentflux=~".*"', 'agentflux!=""'))
    assert of_kind(objects, "PrometheusRule")["agentflux-rules"]["spec"] == narrowed
