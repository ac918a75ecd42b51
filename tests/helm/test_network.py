"""Who may speak to whom: the picture of the design, and nothing else."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.helm.helm import Manifest, render
from tests.helm.manifests import EVERYTHING, of_kind, pod_of, pods

# From, to, port; `anybody` and `prometheus` are outside.
PICTURE = {
    ("anybody", "gateway", 8030), ("test", "gateway", 8030),
    ("gateway", "selector", 8031), ("gateway", "arguments", 8032), ("gateway", "callcache", 8033), ("gateway", "sandbox", 8034),
    ("gateway", "engine", 8000), ("selector", "engine", 8000), ("arguments", "engine", 8000),
    ("gateway", "valkey", 6379), ("callcache", "valkey", 6379),
    ("prometheus", "gateway", 8030), ("prometheus", "selector", 8031), ("prometheus", "arguments", 8032),
    ("prometheus", "callcache", 8033), ("prometheus", "sandbox", 9034), ("prometheus", "engine", 8010),
    ("prometheus", "trainer", 9036),
}  # fmt: skip
WHO_ASKS_NAMES = {"gateway", "selector", "arguments", "callcache", "test"}


def peers_of(rule: dict[str, Any], side: str) -> Iterator[str]:
    for peer in rule.get(side, [{}]):
        labels = peer.get("podSelector", {}).get("matchLabels", {})
        namespace = peer.get("namespaceSelector", {}).get("matchLabels", {}).get("kubernetes.io/metadata.name")
        yield labels.get("app.kubernetes.io/component") or {"monitoring": "prometheus", "kube-system": "dns"}.get(
            namespace, "anybody"
        )


def edges(objects: list[Manifest], direction: str) -> set[tuple[str, str, int]]:
    """All that the policies let in, or let out."""
    found = set()
    for policy in of_kind(objects, "NetworkPolicy").values():
        own = policy["spec"]["podSelector"]["matchLabels"].get("app.kubernetes.io/component", "all")
        for rule in policy["spec"].get(direction, []):
            for other in peers_of(rule, "from" if direction == "ingress" else "to"):
                for port in rule["ports"]:
                    found.add((other, own, port["port"]) if direction == "ingress" else (own, other, port["port"]))
    return found


def test_what_is_let_in_is_the_picture() -> None:
    assert edges(render(), "ingress") == PICTURE


def test_what_is_let_out_is_the_picture_and_the_names_for_it() -> None:
    inside = {edge for edge in PICTURE if edge[0] not in ("anybody", "prometheus")}
    assert edges(render(), "egress") == inside | {(component, "dns", 53) for component in WHO_ASKS_NAMES}


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_every_pod_has_a_policy_of_its_own_and_the_one_that_denies(values: dict[str, Any]) -> None:
    objects = render(values)
    policies = of_kind(objects, "NetworkPolicy")
    assert all(sorted(policy["spec"]["policyTypes"]) == ["Egress", "Ingress"] for policy in policies.values())
    for pod in pods(objects):
        fitting = {
            name for name, each in policies.items() if each["spec"]["podSelector"]["matchLabels"].items() <= pod.labels.items()
        }
        assert fitting == {f"agentflux-{pod.component}", "agentflux-default-deny"}
    assert not {"ingress", "egress"} & set(policies["agentflux-default-deny"]["spec"])


@pytest.mark.parametrize("component", ["sandbox", "engine", "trainer", "prepare", "valkey"])
def test_who_has_nobody_to_ask_is_let_out_nowhere(component: str) -> None:
    # With everything on: traces, upstreams and toolsets' secrets open no door for these.
    assert "egress" not in of_kind(render(EVERYTHING), "NetworkPolicy")[f"agentflux-{component}"]["spec"]


def test_every_address_that_a_service_is_given_is_a_service_and_may_be_reached() -> None:
    objects = render(EVERYTHING)
    allowed, services = edges(objects, "egress"), of_kind(objects, "Service")
    found = set()
    for pod in pods(objects):
        for value in pod.env.values():
            for host, port in re.findall(r"(agentflux-[a-z]+)(?:-\d\.agentflux-engine)?:(\d+)", value):
                if pod.component != "sandbox":
                    found.add((pod.component, host, int(port)))
    assert len(found) == 8
    for component, host, port in found:
        assert port in {each["port"] for each in services[host]["spec"]["ports"]}
        assert (component, host.removeprefix("agentflux-"), port) in allowed


def test_clients_can_be_told_apart() -> None:
    clients = [{"namespaceSelector": {"matchLabels": {"kubernetes.io/metadata.name": "kube-system"}}}]
    let_in = edges(render({"networkPolicy": {"clients": clients}}), "ingress")
    assert {("dns", "gateway", 8030), ("test", "gateway", 8030)} <= let_in
    assert ("anybody", "gateway", 8030) not in let_in


def test_tools_reach_only_what_was_opened_for_them() -> None:
    rule = {"to": [{"ipBlock": {"cidr": "10.1.0.0/16"}}], "ports": [{"port": 443, "protocol": "TCP"}]}
    egress = of_kind(render({"networkPolicy": {"sandbox": [rule]}}), "NetworkPolicy")["agentflux-sandbox"]["spec"]["egress"]
    assert rule in egress
    assert len(egress) == 2  # and names


def test_mcp_clients_reach_the_sandbox_only_with_tokens() -> None:
    assert not {port for _, to, port in edges(render(), "ingress") if to == "sandbox"} & {8035}
    objects = render({"sandbox": {"mcpTokensSecret": "tokens"}})
    assert ("anybody", "sandbox", 8035) in edges(objects, "ingress")
    assert pod_of(objects, "sandbox").env["AGENTFLUX_SANDBOX_MCP_TOKENS_FILE"] == "/secrets/mcp/tokens"


def test_policies_can_be_left_out() -> None:
    given = {"networkPolicy": {"enabled": False}, "sandbox": {"enabled": False}}
    assert of_kind(render(given), "NetworkPolicy") == {}
