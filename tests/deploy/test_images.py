"""The images: what each Dockerfile promises, and the health check that they carry."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from deploy.images.health import PORTS, complaint, port_of, service_of
from services.callcache.settings import CallCacheSettings
from services.engine.settings import EngineSettings
from services.gateway.settings import GatewaySettings
from services.sandbox.settings import SandboxSettings
from tests.valkey import free_port

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "deploy" / "images").glob("*.Dockerfile"))
LISTS = sorted((ROOT / "deploy" / "requirements" / "images").glob("*.txt"))


def stages_of(file: Path) -> list[str]:
    """The text of each stage, without the arguments before the first."""
    return re.split(r"^FROM ", file.read_text(), flags=re.M)[1:]


def final_stages_of(file: Path) -> list[str]:
    return [stage for stage in stages_of(file) if "build" not in stage.splitlines()[0]]


def test_there_is_one_dockerfile_per_kind() -> None:
    assert {file.name for file in DOCKERFILES} == {f"{kind}.Dockerfile" for kind in ("service", "engine", "sandbox", "trainer")}


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_every_base_is_an_argument_with_tag_and_digest(file: Path) -> None:
    assert all(re.match(r"\S+:\$\{(\w+)_TAG\}\$\{\1_DIGEST\}( |$)", stage.splitlines()[0]) for stage in stages_of(file))
    assert re.search(r"^ARG PYTHON_DIGEST=@sha256:[0-9a-f]{64}$", file.read_text(), re.M)


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_what_runs_is_no_root_knows_its_health_and_carries_labels(file: Path) -> None:
    for stage in final_stages_of(file):
        assert re.search(r"^USER 65532:65532$", stage, re.M)
        assert re.search(r"^HEALTHCHECK ", stage, re.M)
        assert all(f"org.opencontainers.image.{label}=" in stage for label in ("title", "version", "revision", "licenses"))


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_packages_come_from_lists_with_hashes_and_secrets_stay_out(file: Path) -> None:
    text = file.read_text()
    lists = re.findall(r"sh install\.sh (\S+)", text)
    assert lists
    assert all((ROOT / "deploy" / "requirements" / "images" / f"{name}.txt").is_file() for name in lists)
    assert text.count("--mount=type=secret,id=index") == text.count("--mount=type=secret,id=ca") >= len(lists)
    assert not re.search(r"^(ARG|ENV) .*(INDEX_URL|REGISTRY|PROXY|TOKEN)", text, re.M)


@pytest.mark.parametrize("file", LISTS, ids=lambda file: file.stem)
def test_every_package_has_a_hash_and_no_list_names_an_index(file: Path) -> None:
    text = file.read_text()
    entries = [entry for entry in re.split(r"\n(?=\S)", text) if not entry.startswith("#")]
    assert entries
    assert all("--hash=sha256:" in entry for entry in entries)
    assert "://" not in text


def test_the_same_torch_is_built_in_as_is_installed_without_containers() -> None:
    versions = {
        re.search(r"^TORCH_VERSION=(\S+)$", (ROOT / "deploy" / name).read_text(), re.M)[1]  # type: ignore[index]
        for name in ("images/install.sh", "requirements/setup.sh")
    }
    assert len(versions) == 1


def test_the_health_check_finds_what_runs() -> None:
    assert service_of(b"/sbin/docker-init\0--\0python\0-m\0services.gateway\0") == "gateway"
    assert service_of(b"python\0-m\0services.engine\0") == "engine"
    with pytest.raises(ValueError, match="sleep 60"):
        service_of(b"sleep\00060\0")


def test_the_health_check_knows_the_ports_of_the_services() -> None:
    defaults = {
        "gateway": GatewaySettings, "callcache": CallCacheSettings, "sandbox": SandboxSettings, "engine": EngineSettings,
    }  # fmt: skip
    assert {name: PORTS[name] for name in defaults} == {
        name: settings.model_fields["port"].default for name, settings in defaults.items()
    }
    assert port_of("gateway", {"AGENTFLUX_GATEWAY_PORT": "9030"}) == 9030
    assert port_of("gateway", {}) == 8030


def test_nobody_there_is_unhealthy() -> None:
    assert "nobody answers" in (complaint("gateway", free_port()) or "")
    assert "nobody answers" in (complaint("sandbox", free_port()) or "")
