"""What operators read: every link leads somewhere, every command exists, and every message is one that is really printed."""

from __future__ import annotations

import importlib.util
import os
import re
import subprocess
from pathlib import Path

import pytest
import yaml

from tests.helm.helm import render
from tests.helm.kubernetes import VERSIONS, complaints
from tests.helm.manifests import of_kind, pod_of

ROOT = Path(__file__).parents[2]
PAGES = sorted([*(ROOT / "deploy").glob("*/README.md"), ROOT / "deploy" / "README.md", ROOT / "helm" / "README.md"])
TOP = ROOT / "deploy" / "README.md"


def anchors_of(page: Path) -> set[str]:
    """The headings as GitHub addresses them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(), re.M)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def source() -> str:
    """All of our own programs."""
    return "\n".join(
        file.read_text() for folder in ("services", "deploy/local") for file in sorted((ROOT / folder).rglob("*.py"))
    )


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_link_leads_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        there = (page.parent / path).resolve() if path else page
        assert there.exists(), link
        assert not anchor or anchor in anchors_of(there), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.parent.name)
def test_every_command_exists(page: Path) -> None:
    text = page.read_text()
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"(?:`|\$ |&& )make ([a-z-]+)", text)) <= targets
    for module in set(re.findall(r"python -m ([\w.]+\w)", text)):
        found = importlib.util.find_spec(module)
        assert found is not None, module
        assert found.submodule_search_locations is None or importlib.util.find_spec(f"{module}.__main__"), module


def test_every_message_of_the_table_is_one_that_is_printed() -> None:
    table = TOP.read_text().partition("By what is printed.")[2]
    messages = [message for row in re.findall(r"^\| (`.+?) \| ", table, re.M) for message in re.findall(r"`([^`]+)`", row)]
    printed = source()
    assert len(messages) > 25
    assert [message for message in messages if message not in printed] == []


def test_a_backup_as_the_page_makes_it_comes_back_whole_and_a_second_time(tmp_path: Path) -> None:
    store = tmp_path / ".run" / "adapters"
    (store / "files.select--1").mkdir(parents=True)
    (store / "files.select--1" / "weights").write_text("one")
    (store / "files.manifest.json").write_text("first")
    (store / ".lock").touch()
    for path in (store / "files.select--1" / "weights", store / "files.select--1", store / "files.manifest.json"):
        path.chmod(0o555)
    commands = re.findall(r"^\$ (tar -C \.run/adapters .+?)(?: {2,}#.*)?$", TOP.read_text(), re.M)
    backup, restore = commands[:2], commands[2:]
    assert (len(backup), len(restore)) == (2, 2)

    def run(commands: list[str]) -> None:
        for command in commands:
            subprocess.run(command, shell=True, cwd=tmp_path, check=True, timeout=30)

    run(backup)
    (store / "files.manifest.json").chmod(0o644)
    (store / "files.manifest.json").write_text("second")
    run(restore)
    assert (store / "files.manifest.json").read_text() == "first"
    store.rename(tmp_path / "lost")
    store.mkdir()
    run(restore)
    assert sorted(os.listdir(store)) == ["files.manifest.json", "files.select--1"]
    assert (store / "files.select--1" / "weights").read_text() == "one"
    for folder in (store, tmp_path / "lost"):
        (folder / "files.select--1").chmod(0o755)


def test_the_pod_for_the_volumes_is_restricted_and_finds_the_claims_of_the_chart() -> None:
    pod = yaml.safe_load((ROOT / "deploy" / "kubernetes" / "volumes.yaml").read_text())
    assert [said for version in VERSIONS for said in complaints(pod, version)] == []
    objects = render()
    claims = {volume["name"]: volume["persistentVolumeClaim"]["claimName"] for volume in pod["spec"]["volumes"]}
    assert set(claims.values()) <= set(of_kind(objects, "PersistentVolumeClaim"))
    gateway = pod_of(objects, "gateway")
    assert pod["spec"]["securityContext"] == gateway.spec["securityContext"]
    (container,) = pod["spec"]["containers"]
    assert container["image"] == gateway.container["image"]
    assert container["securityContext"].items() <= gateway.container["securityContext"].items()
