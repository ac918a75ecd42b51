"""Calls the docker and compose programs of this machine, whichever generation they are."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]
VERSION = "0.1.0"


class DockerError(Exception):
    """A docker command failed, or cannot be run here; says which, and what it wrote last."""


@dataclass(frozen=True)
class Docker:
    """The programs in use: `docker` is one that can build with BuildKit, `compose` the command for compose."""

    docker: str
    compose: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=lambda: {**os.environ, "DOCKER_BUILDKIT": "1"})

    def run(self, *arguments: str, timeout_s: float = 120.0) -> str:
        """Runs `docker …`, gives what it printed.

        Raises:
            DockerError: it failed or took longer.
        """
        return _run([self.docker, *arguments], self.environment, timeout_s)

    def inspect(self, name: str) -> dict[str, Any] | None:
        """A container, image, network or volume as docker describes it; None when there is none."""
        try:
            found: list[dict[str, Any]] = json.loads(self.run("inspect", name))
        except DockerError:
            return None
        return found[0]


def find_docker() -> Docker:
    """The programs on PATH.

    Raises:
        DockerError: docker or compose is not installed, or no daemon answers.
    """
    docker = next((path for path in _on_path("docker") if _builds(path)), None)
    if docker is None:
        raise DockerError(
            "no docker on PATH can build with BuildKit; install docker 20.10, or a newer one with its buildx plugin"
        )
    probe = Docker(docker, ())
    probe.run("info", timeout_s=20)
    return Docker(docker, find_compose(docker))


def find_compose(docker: str) -> list[str]:
    """`docker compose`, or the program docker-compose.

    Raises:
        DockerError: neither is installed.
    """
    if subprocess.run([docker, "compose", "version"], capture_output=True, timeout=20).returncode == 0:
        return [docker, "compose"]
    if compose := shutil.which("docker-compose"):
        return [compose]
    raise DockerError("neither `docker compose` nor docker-compose is installed")


def _on_path(name: str) -> list[str]:
    folders = os.environ.get("PATH", "").split(":")
    return [path for folder in folders if folder and os.access(path := f"{folder}/{name}", os.X_OK)]


def _builds(docker: str) -> bool:
    # Until 22 the client has BuildKit in it; since then it is a plugin.
    version = subprocess.run([docker, "--version"], capture_output=True, text=True, timeout=20).stdout
    major = re.search(r"version (\d+)", version)
    if major and int(major[1]) < 23:
        return True
    return subprocess.run([docker, "buildx", "version"], capture_output=True, timeout=20).returncode == 0


def _run(command: Sequence[str], environment: Mapping[str, str], timeout_s: float) -> str:
    shown = " ".join(command[:6])
    try:
        done = subprocess.run(command, env=dict(environment), cwd=REPOSITORY, capture_output=True, text=True, timeout=timeout_s)
    except subprocess.TimeoutExpired:
        raise DockerError(f"`{shown} …` did not end within {timeout_s:g} s") from None
    if done.returncode:
        raise DockerError(f"`{shown} …` ended with {done.returncode}: {(done.stderr or done.stdout)[-2000:].strip()}")
    return done.stdout


@dataclass(frozen=True)
class Project:
    """One compose project of docker-compose.yml."""

    docker: Docker
    name: str
    environment: Mapping[str, str]
    profiles: Sequence[str] = ("cpu",)

    def compose(self, *arguments: str, timeout_s: float = 600.0) -> str:
        """Runs `docker compose …` for this project.

        Raises:
            DockerError: it failed or took longer.
        """
        flags = [flag for profile in self.profiles for flag in ("--profile", profile)]
        command = [*self.docker.compose, "--project-name", self.name, *flags, *arguments]
        return _run(command, {**self.docker.environment, **self.environment}, timeout_s)

    def containers(self) -> dict[str, str]:
        """Container id by name of the service, stopped ones too."""
        listed = self.docker.run(
            "ps", "--all", "--filter", f"label=com.docker.compose.project={self.name}",
            "--format", '{{.Label "com.docker.compose.service"}} {{.ID}}',
        )  # fmt: skip
        return dict(line.split() for line in listed.splitlines())

    def leftovers(self) -> list[str]:
        """Containers, volumes and networks that still belong to the project."""
        label = f"label=com.docker.compose.project={self.name}"
        found = [self.docker.run(kind, "ls", "--quiet", "--filter", label) for kind in ("volume", "network")]
        return [*self.containers().values(), *"\n".join(found).split()]
