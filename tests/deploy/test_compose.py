"""docker-compose.yml: what every container may do, who reaches whom, and that both generations of compose can read it."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from services.arguments.settings import ArgumentsSettings
from services.callcache.settings import CallCacheSettings
from services.engine.settings import EngineSettings
from services.gateway.settings import GatewaySettings
from services.sandbox.settings import SandboxSettings
from services.selector.settings import SelectorSettings

ROOT = Path(__file__).parents[2]
FILE = ROOT / "docker-compose.yml"
TEXT = FILE.read_text()
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
PROFILES = ("cpu", "gpu", "observability", "train")
SETTINGS = {
    "GATEWAY": GatewaySettings, "SELECTOR": SelectorSettings, "ARGUMENTS": ArgumentsSettings, "CALLCACHE": CallCacheSettings,
    "SANDBOX": SandboxSettings, "ENGINE": EngineSettings,
}  # fmt: skip


def members(network: str) -> set[str]:
    return {name for name, service in SERVICES.items() if network in service.get("networks", ())}


@pytest.mark.parametrize("name", SERVICES)
def test_every_container_is_confined(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"]
    assert service["init"]
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["pids_limit"]
    assert service["mem_limit"]
    assert not {"privileged", "cap_add", "pid", "ipc", "userns_mode"} & set(service)


def test_no_container_sees_the_docker_socket() -> None:
    assert "docker.sock" not in TEXT


def test_only_those_who_need_them_reach_the_engine_and_valkey() -> None:
    scrapers = {"prometheus", "otel-collector"}
    assert members("redis") == {"valkey", "callcache", "gateway"}
    assert members("engine") - scrapers == {"engine-cpu", "engine-gpu", "gateway", "selector", "arguments"}
    assert members("sandbox") - scrapers == {"sandbox", "gateway"}
    assert {name for name, network in COMPOSE["networks"].items() if not network.get("internal")} == {"edge", "dashboards"}


def test_what_is_published_listens_on_loopback_until_somebody_says_otherwise() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert set(published) == {"gateway", "prometheus", "grafana"}
    assert all(
        re.match(r"127\.0\.0\.1:|\$\{AGENTFLUX_BIND:-127\.0\.0\.1\}:", port) for ports in published.values() for port in ports
    )


def test_nothing_has_a_password() -> None:
    assert not re.search(r"password|secret_key|admin_user", TEXT.replace("there is no password to forget", ""), re.I)


def test_images_of_others_are_named_by_digest() -> None:
    others = [service["image"] for service in SERVICES.values() if not service["image"].startswith("agentflux/")]
    assert len(others) == 4
    assert all(re.search(r"@sha256:[0-9a-f]{64}\}?$", image) for image in others)


def test_every_setting_is_one_that_its_service_has() -> None:
    found = {key for service in SERVICES.values() for key in service.get("environment", {}) if key.startswith("AGENTFLUX_")}
    for key in found:
        _, service, field = key.split("_", 2)
        assert field.lower() in SETTINGS[service].model_fields, key


def test_every_variable_is_explained_in_the_example_and_has_the_same_default() -> None:
    example = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "deploy/compose/env.example").read_text(), re.M))
    used = dict(re.findall(r"\$\{(\w+):-([^}]*)\}", TEXT))
    assert set(used) == set(example) - {"COMPOSE_PROFILES", "COMPOSE_PROJECT_NAME"}
    differ = {name for name, default in used.items() if example[name] != default}
    # The engine's memory is the one that depends on the profile.
    assert differ == {"AGENTFLUX_ENGINE_MEMORY"}
    gpu = dict(re.findall(r"^(\w+)=(.*)$", (ROOT / "deploy/compose/gpu.env").read_text(), re.M))
    assert set(gpu) <= set(example)


def test_every_mounted_folder_and_built_file_is_in_the_repository() -> None:
    mounted = re.findall(r"^\s+- \./(\S+?):", TEXT, re.M)
    built = [service["build"]["dockerfile"] for service in SERVICES.values() if "build" in service]
    assert mounted
    assert built
    assert [path for path in (*mounted, *built) if not (ROOT / path).exists()] == []


def compose_programs() -> list[str]:
    beside = Path(sys.executable).with_name("docker-compose")
    found = [str(beside)] if beside.exists() else []
    return sorted({*found, *filter(None, [shutil.which("docker-compose")])})


@pytest.mark.parametrize("profile", PROFILES)
def test_compose_itself_accepts_every_profile(profile: str) -> None:
    programs = compose_programs()
    if not programs:
        pytest.skip("NO docker-compose IS INSTALLED: docker-compose.yml was not checked by compose itself")
    for program in programs:
        shown = subprocess.run(
            [program, "--file", str(FILE), "--profile", profile, "config"], capture_output=True, text=True, timeout=60
        )  # fmt: skip
        assert shown.returncode == 0, shown.stderr
        # Every variable has a default, so compose has nothing to warn of.
        assert "variable is not set" not in shown.stderr
        assert set(yaml.safe_load(shown.stdout)["services"]) >= {"gateway", "selector", "arguments", "callcache", "sandbox"}


def test_images_that_were_carried_over_are_the_same_ones_by_tag() -> None:
    carried = yaml.safe_load((ROOT / "deploy" / "compose" / "airgap.yaml").read_text())["services"]
    pinned = {
        name: image for name, image in ((name, service["image"]) for name, service in SERVICES.items()) if "@sha256:" in image
    }
    assert {name: service["image"] for name, service in carried.items()} == {
        name: re.sub(r"^\$\{\w+:-|@sha256:.*$", "", image) for name, image in pinned.items()
    }
    # The pages say how to find them.
    (pattern,) = re.findall(r"grep -oE '(.+)' docker-compose.yml", (ROOT / "deploy" / "README.md").read_text())
    assert {found.partition("@")[0] for found in re.findall(pattern, TEXT)} == {each["image"] for each in carried.values()}


def test_compose_accepts_the_file_for_carried_images_over_the_first_one() -> None:
    for program in compose_programs():
        files = ["--file", str(FILE), "--file", str(ROOT / "deploy" / "compose" / "airgap.yaml")]
        command = [program, *files, "--profile", "cpu", "--profile", "observability", "config"]
        shown = subprocess.run(command, capture_output=True, text=True, timeout=60)
        assert shown.returncode == 0, shown.stderr
        assert "@sha256:" not in shown.stdout
