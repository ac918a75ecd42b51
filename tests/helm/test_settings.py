"""What the chart tells a service is what that service reads."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from helm.generate import DECIDED, SETTINGS
from services.shared.chassis.settings import ServiceSettings
from tests.helm.helm import CHART, render
from tests.helm.manifests import EVERYTHING, FILES, Pod, of_kind, pod_of, pods
from tests.helm.strategies import like

SCHEMA = json.loads((CHART / "values.schema.json").read_text("utf-8"))


@contextmanager
def environment_of(pod: Pod) -> Iterator[None]:
    """As in the container: what comes from Secrets has some value there."""
    before = dict(os.environ)
    os.environ.clear()
    for each in pod.container["env"]:
        os.environ[each["name"]] = each.get("value", "redis://:password@valkey:6379/0")
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def read(service: str, values: dict[str, Any] | None = None) -> ServiceSettings:
    """The settings as the service reads them in its pod."""
    with environment_of(pod_of(render(values), service)):
        return SETTINGS[service]()


@pytest.mark.parametrize("values", [{}, EVERYTHING], ids=["defaults", "everything"])
def test_every_variable_is_a_field_of_its_service(values: dict[str, Any]) -> None:
    ours = [
        (pod.component, each["name"].split("_", 2))
        for pod in pods(render(values))
        for each in pod.container["env"]
        if each["name"].startswith("AGENTFLUX_")
    ]
    assert len(ours) > 30
    for component, (_, service, field) in ours:
        assert service.lower() == {"prepare": "engine"}.get(component, component)
        assert field.lower() in SETTINGS[service.lower()].model_fields


@pytest.mark.parametrize("file", FILES)
def test_every_service_takes_what_every_values_file_tells_it(file: str) -> None:
    for pod in pods(render(files=(file,))):
        if pod.component in SETTINGS:
            with environment_of(pod):
                assert SETTINGS[pod.component]().host == "0.0.0.0"


@pytest.mark.parametrize("service", SETTINGS)
def test_a_service_listens_where_its_pod_says(service: str) -> None:
    ports = {port["name"]: port["containerPort"] for port in pod_of(render(), service).container["ports"]}
    assert read(service).port == ports.get("http") or ports["grpc"]


@settings(max_examples=5, suppress_health_check=list(HealthCheck))
@given(st.sampled_from([*SETTINGS]).flatmap(lambda name: st.tuples(st.just(name), _config_of(name))))
def test_a_service_reads_every_config_as_it_was_written(chosen: tuple[str, dict[str, Any]]) -> None:
    service, config = chosen
    known = read(service, {service: {"config": config}})
    for name, value in config.items():
        # An empty variable counts as none at all, and the default holds.
        if value not in (None, ""):
            found = known.model_dump(mode="json")[name]
            assert found == ({**found, **value} if isinstance(value, dict) else value)


def _config_of(service: str) -> st.SearchStrategy[dict[str, Any]]:
    return like(SCHEMA["properties"][service]["properties"]["config"])


def test_a_large_number_arrives_whole() -> None:
    assert pod_of(render(EVERYTHING), "gateway").env["AGENTFLUX_GATEWAY_RESPONSE_MAX_BYTES"] == "8388608"


@pytest.mark.parametrize("service", SETTINGS)
def test_a_setting_is_either_the_operators_or_the_charts(service: str) -> None:
    offered = set(SCHEMA["properties"][service]["properties"]["config"]["properties"])
    assert offered | DECIDED >= set(SETTINGS[service].model_fields)
    assert not offered & DECIDED


def test_nothing_secret_stands_in_a_pod() -> None:
    objects = render()
    secrets = [value for each in of_kind(objects, "Secret").values() for value in each["data"].values()]
    plain = json.dumps([each for each in objects if each["kind"] != "Secret"])
    assert len(secrets) == 4
    assert not [secret for secret in secrets if secret in plain]
    assert pod_of(objects, "gateway").env["AGENTFLUX_GATEWAY_API_KEY_FILE"] == "/secrets/auth/api-key"


def test_secrets_that_are_there_are_used_and_none_is_made() -> None:
    given = {
        "auth": {"existingSecret": "keys", "keysFile": "keys.yaml"},
        "redis": {"existingSecret": "mine", "key": "url"},
        "upstreams": {"existingSecret": "elsewhere"},
    }
    objects = render(given)
    assert not of_kind(objects, "Secret")
    gateway = pod_of(objects, "gateway")
    assert gateway.env["AGENTFLUX_GATEWAY_KEYS_FILE"] == "/secrets/auth/keys.yaml"
    assert gateway.env["AGENTFLUX_GATEWAY_UPSTREAMS_FILE"] == "/secrets/upstreams/upstreams.yaml"
    mounted = {volume["secret"]["secretName"] for volume in gateway.spec["volumes"] if "secret" in volume}
    assert mounted == {"keys", "elsewhere"}
    for component in ("gateway", "callcache"):
        (url,) = (each for each in pod_of(objects, component).container["env"] if each["name"].endswith("REDIS_URL"))
        assert url["valueFrom"] == {"secretKeyRef": {"name": "mine", "key": "url"}}


def test_the_sandbox_lets_in_the_gateway_by_policy_or_by_certificate() -> None:
    plain, both = render(), render(EVERYTHING)
    assert pod_of(plain, "sandbox").env["AGENTFLUX_SANDBOX_PRIVATE_NETWORK"] == "true"
    encrypted = pod_of(both, "sandbox").env
    assert "AGENTFLUX_SANDBOX_PRIVATE_NETWORK" not in encrypted
    assert encrypted["AGENTFLUX_SANDBOX_TLS_CLIENT_CA"] == "/secrets/tls/ca.crt"
    assert pod_of(both, "gateway").env["AGENTFLUX_GATEWAY_SANDBOX_CERTIFICATE"] == "/secrets/sandbox/tls.crt"


def test_everybody_asks_every_engine_by_the_same_names() -> None:
    objects = render({"engine": {"autoscaling": {"kind": "keda", "minReplicas": 2, "maxReplicas": 3}}})
    names = {pod_of(objects, name).env[f"AGENTFLUX_{name.upper()}_ENGINE_URL"] for name in ("gateway", "selector", "arguments")}
    assert names == {",".join(f"http://agentflux-engine-{each}.agentflux-engine:8000" for each in range(3))}
    assert of_kind(objects, "StatefulSet")["agentflux-engine"]["spec"]["serviceName"] == "agentflux-engine"
    service = of_kind(objects, "Service")["agentflux-engine"]["spec"]
    assert service["clusterIP"] == "None"
    assert service["publishNotReadyAddresses"] is True


def test_the_engine_serves_the_base_model_under_the_name_that_the_others_ask_for() -> None:
    objects = render({"model": {"name": "qwen", "dir": "/models/qwen"}})
    engine = pod_of(objects, "engine").env
    asked = {pod_of(objects, name).env[f"AGENTFLUX_{name.upper()}_BASE_MODEL"] for name in ("gateway", "selector", "arguments")}
    assert asked == {engine["AGENTFLUX_ENGINE_SERVED_MODEL_NAME"]} == {"qwen"}
    folders = {pod_of(objects, name).env[f"AGENTFLUX_{name.upper()}_MODEL_DIR"] for name in ("engine", "selector", "arguments")}
    assert folders == {"/models/qwen"}
