"""Looking into rendered objects."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from tests.helm.helm import CHART, Manifest

# Every values file of the chart, the defaults among them.
FILES = ("values.yaml", *sorted(path.name for path in CHART.glob("values-*.yaml")))

# Everything that can be on at a time.
EVERYTHING: dict[str, Any] = {
    "model": {"fromImage": True},
    "upstreams": {"existingSecret": "upstreams"},
    "toolsets": {"existingClaim": "toolsets"},
    "storage": {name: {"enabled": True} for name in ("workspace", "trajectories", "decisions", "work")},
    "gateway": {
        "ingress": {"enabled": True, "host": "agents.example", "tlsSecret": "certificate", "className": "nginx"},
        "autoscaling": {"kind": "hpa", "podMetrics": {"agentflux_turns_waiting": "4"}},
        "config": {"drain_timeout_s": 90.5, "ladder": {"warn": 2}, "cors_origins": ["*"], "response_max_bytes": 8_388_608},
    },
    "selector": {"autoscaling": {"kind": "keda"}},
    "sandbox": {"existingSecret": "tools", "mcpTokensSecret": "mcp", "tls": {"serverSecret": "server", "clientSecret": "client"}},
    "engine": {"gpu": {"count": 2}, "config": {"extra_args": "--seed 1"}, "autoscaling": {"kind": "keda", "maxReplicas": 3}},
    "trainer": {"run": "filesystem", "scheduled": "filesystem"},
    "observability": {
        "otlpEndpoint": "http://collector:4318",
        "serviceMonitor": {"enabled": True},
        "prometheusRule": {"enabled": True},
    },
}


@dataclass(frozen=True)
class Pod:
    """A pod that an object makes; `component` is gateway, engine, trainer and so on."""

    kind: str
    name: str
    component: str
    labels: dict[str, str]
    spec: dict[str, Any]

    @property
    def container(self) -> dict[str, Any]:
        """Its only one."""
        (container,) = self.spec["containers"]
        return dict(container)

    @property
    def env(self) -> dict[str, str]:
        """Environment variables that have their value in the pod."""
        return {each["name"]: each["value"] for each in self.container["env"] if "value" in each}


def pods(manifests: Iterable[Manifest]) -> Iterator[Pod]:
    """Every pod of every object that makes one."""
    for manifest in manifests:
        kind, name = manifest["kind"], manifest["metadata"]["name"]
        match kind:
            case "Pod":
                template = manifest
            case "Deployment" | "StatefulSet" | "Job":
                template = manifest["spec"]["template"]
            case "CronJob":
                template = manifest["spec"]["jobTemplate"]["spec"]["template"]
            case _:
                continue
        labels = template["metadata"]["labels"]
        yield Pod(kind, name, labels["app.kubernetes.io/component"], labels, template["spec"])


def of_kind(manifests: Iterable[Manifest], kind: str) -> dict[str, Manifest]:
    """Objects of one kind by name."""
    return {each["metadata"]["name"]: each for each in manifests if each["kind"] == kind}


def pod_of(manifests: Iterable[Manifest], component: str) -> Pod:
    """The first pod of a component."""
    return next(pod for pod in pods(manifests) if pod.component == component)
