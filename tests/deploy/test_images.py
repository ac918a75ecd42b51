"""The images: what each Dockerfile promises."""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path

import pytest

from deploy.images.system_sbom import bill, debian_components, python_components

ROOT = Path(__file__).parents[2]
DOCKERFILES = sorted((ROOT / "deploy" / "images").glob("*.Dockerfile"))
DEV = ROOT / "deploy" / "requirements" / "dev.txt"
LISTS = sorted((DEV.parent / "images").glob("*.txt"))


def stages_of(file: Path) -> list[str]:
    """The text of each stage, without the arguments before the first."""
    return re.split(r"^FROM ", file.read_text(), flags=re.M)[1:]


def final_stages_of(file: Path) -> list[str]:
    return [stage for stage in stages_of(file) if "build" not in stage.splitlines()[0]]


def pins(file: Path) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==(\S+)", file.read_text(), re.M))


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


@pytest.mark.parametrize("file", [*LISTS, DEV.with_name("local.txt")], ids=lambda file: file.stem)
def test_what_runs_is_what_is_tested(file: Path) -> None:
    tested, installed = pins(DEV), pins(file)
    assert installed
    assert {name: version for name, version in installed.items() if tested.get(name, version) != version} == {}


@pytest.mark.parametrize("file", DOCKERFILES, ids=lambda file: file.stem)
def test_every_image_has_the_bill_of_what_its_base_brings_after_the_last_package_is_installed(file: Path) -> None:
    for stage in final_stages_of(file):
        assert stage.index("deploy.images.system_sbom /opt/venv/share/sbom/system.cdx.json") > stage.rfind("apt-get install")
        # Before PATH leads to our own interpreter, whose packages install.sh has written down.
        assert stage.index("deploy.images.system_sbom") < stage.index("ENV PATH=")


def test_the_bill_names_packages_once_each_and_by_their_address(tmp_path: Path) -> None:
    debian = debian_components("libc6\t2.36-9+deb12u10\tamd64\nbash\t5.2.15-2+b7\tamd64\n", "debian")
    document = json.loads(bill([*debian, *python_components()]))
    addresses = [component["purl"] for component in document["components"]]
    assert (document["bomFormat"], document["specVersion"]) == ("CycloneDX", "1.6")
    assert "pkg:deb/debian/libc6@2.36-9%2Bdeb12u10?arch=amd64" in addresses
    assert f"pkg:generic/python@{platform.python_version()}" in addresses
    assert f"pkg:pypi/pytest@{pytest.__version__}" in addresses
    assert addresses == sorted(set(addresses))


def test_the_version_is_the_same_everywhere() -> None:
    said = {
        "pyproject.toml": r'^version = "(.+)"$', "helm/Chart.yaml": r"^(?:v|appV)ersion: (.+)$",
        "deploy/compose/docker.py": r'^VERSION = "(.+)"$', "deploy/compose/env.example": r"^AGENTFLUX_VERSION=(.+)$",
        "docker-compose.yml": r"\$\{AGENTFLUX_VERSION:-(.+?)\}",
        **{str(file.relative_to(ROOT)): r"^ARG VERSION=(.+)$" for file in DOCKERFILES},
    }  # fmt: skip
    found = {name: set(re.findall(pattern, (ROOT / name).read_text(), re.M)) for name, pattern in said.items()}
    assert len(set.union(*found.values())) == 1, found
    assert all(found.values()), found


def test_the_same_torch_is_built_in_as_is_installed_without_containers() -> None:
    versions = {
        re.search(r"^TORCH_VERSION=(\S+)$", (ROOT / "deploy" / name).read_text(), re.M)[1]  # type: ignore[index]
        for name in ("images/install.sh", "requirements/setup.sh")
    }
    assert len(versions) == 1
