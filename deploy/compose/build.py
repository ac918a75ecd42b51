"""Builds the images, `make images`. With --stand-in it needs no image registry: the bases are made from Debian's packages.

Packages come from whatever index this machine is configured to use: its bundle of certificates and its index variables are
given to the build as secrets, and reach no image.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from deploy.compose.docker import REPOSITORY, VERSION, Docker, DockerError, find_docker

PYTHON_BASE = "python:3.11.16-slim-bookworm"
VALKEY = "agentflux/valkey-stand-in:9.1.2"
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
# What decides where packages come from, besides PyPI's and npm's own defaults.
INDEX_VARIABLES = (
    "PIP_INDEX_URL", "PIP_EXTRA_INDEX_URL", "UV_INDEX_URL", "UV_DEFAULT_INDEX", "UV_EXTRA_INDEX_URL", "NPM_CONFIG_REGISTRY",
    "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "TORCH_SOURCE",
)  # fmt: skip
# Dockerfile and target by tag.
IMAGES = {
    f"agentflux/service:{VERSION}": ("deploy/images/service.Dockerfile", None),
    f"agentflux/sandbox:{VERSION}": ("deploy/images/sandbox.Dockerfile", None),
    f"agentflux/trainer:{VERSION}": ("deploy/images/trainer.Dockerfile", None),
    f"agentflux/engine:{VERSION}-cpu": ("deploy/images/engine.Dockerfile", "cpu"),
}
GPU_IMAGE = {f"agentflux/engine:{VERSION}-gpu": ("deploy/images/engine.Dockerfile", "gpu")}
BUILD_TIMEOUT_S = 3600.0


def make_base(docker: Docker) -> None:
    """Imports a Debian 12 with Python under the tag that the Dockerfiles name; does nothing when it is there.

    Raises:
        DockerError: debootstrap is missing or failed.
    """
    if docker.inspect(PYTHON_BASE):
        return
    if shutil.which("debootstrap") is None:
        raise DockerError("debootstrap is not installed; it makes the base image where no registry can be reached")
    mirrors = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Codename: bookworm", "Created-By: Packages"],
        capture_output=True, text=True, check=True, timeout=60,
    ).stdout.split()  # fmt: skip
    if not mirrors:
        raise DockerError("apt knows no mirror of bookworm, from which debootstrap could make the base image")
    with tempfile.TemporaryDirectory(prefix="agentflux-base-") as folder:
        include = "python3,python3-venv,python3-pip,ca-certificates"
        made = subprocess.run(
            ["debootstrap", "--variant=minbase", f"--include={include}", "bookworm", folder, mirrors[0]],
            capture_output=True, text=True, timeout=1200,
        )  # fmt: skip
        if made.returncode:
            raise DockerError(f"debootstrap failed: {made.stdout[-1000:]}")
        for cache in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(Path(folder, cache))
        archive = subprocess.Popen(["tar", "-C", folder, "-c", "."], stdout=subprocess.PIPE)
        subprocess.run(
            [docker.docker, "import", "-", PYTHON_BASE], stdin=archive.stdout, check=True, capture_output=True, timeout=600
        )
        archive.wait()


@contextmanager
def secrets() -> Iterator[list[str]]:
    """The flags that give a build this machine's certificates and index variables."""
    with tempfile.TemporaryDirectory(prefix="agentflux-secrets-") as folder, _local_wheels() as wheels:
        index = Path(folder, "index")
        given = {name: value for name in INDEX_VARIABLES if (value := os.environ.get(name))} | wheels
        index.write_text("".join(f"{name}='{value}'\n" for name, value in given.items()))
        flags = ["--secret", f"id=index,src={index}"]
        yield [*flags, "--secret", f"id=ca,src={CERTIFICATES}"] if CERTIFICATES.is_file() else flags


@contextmanager
def _local_wheels() -> Iterator[dict[str, str]]:
    # A folder of wheels (deploy/requirements/setup.sh uses it, too) is not visible inside a build: it is served on loopback.
    folder = os.environ.get("PIP_FIND_LINKS", "")
    if "TORCH_SOURCE" in os.environ or not list(Path(folder or "/nonexistent").glob("torch-*.whl")):
        yield {}
        return
    server = subprocess.Popen(
        ["python3", "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", folder],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
    )  # fmt: skip
    try:
        assert server.stdout is not None
        # "Serving HTTP on 127.0.0.1 port 41234 (http://127.0.0.1:41234/) ..."
        port = server.stdout.readline().split(" port ")[1].split()[0]
        yield {"TORCH_SOURCE": f"--find-links http://127.0.0.1:{port}/"}
    finally:
        server.terminate()
        server.wait()


def build(docker: Docker, tag: str, file: str, target: str | None, *, flags: list[str]) -> float:
    """Builds one image; gives the seconds it took.

    Raises:
        DockerError: it failed; says with which last lines.
    """
    started = time.monotonic()
    revision = subprocess.run(["git", "rev-parse", "HEAD"], cwd=REPOSITORY, capture_output=True, text=True).stdout.strip()
    command = ["build", "--network", "host", "--file", file, "--tag", tag, "--build-arg", f"REVISION={revision or 'unknown'}"]
    docker.run(*command, *(["--target", target] if target else []), *flags, ".", timeout_s=BUILD_TIMEOUT_S)
    return time.monotonic() - started


def build_all(docker: Docker, *, stand_in: bool, gpu: bool = False) -> dict[str, float]:
    """Builds every image; gives the seconds by tag."""
    seconds = {}
    flags: list[str] = []
    images: dict[str, tuple[str, str | None]] = IMAGES | (GPU_IMAGE if gpu else {})
    if stand_in:
        started = time.monotonic()
        make_base(docker)
        seconds[PYTHON_BASE] = time.monotonic() - started
        flags = ["--build-arg", "PYTHON_DIGEST="]
        images = images | {VALKEY: ("deploy/compose/valkey.Dockerfile", None)}
    with secrets() as given:
        for tag, (file, target) in images.items():
            seconds[tag] = build(docker, tag, file, target, flags=[*flags, *given])
            print(f"built {tag} in {seconds[tag]:.0f} s", flush=True)
    return seconds


def main() -> None:
    """Builds the images on this machine."""
    parser = argparse.ArgumentParser(prog="python -m deploy.compose.build", description=__doc__)
    parser.add_argument("--stand-in", action="store_true", help="make the bases here; no image registry is asked")
    parser.add_argument("--gpu", action="store_true", help="build the engine for NVIDIA, too (the base has 10 GB)")
    given = parser.parse_args()
    try:
        build_all(find_docker(), stand_in=given.stand_in, gpu=given.gpu)
    except DockerError as error:
        raise SystemExit(f"images: {error}") from None


if __name__ == "__main__":
    main()
