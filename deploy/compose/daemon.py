"""A Docker Engine for the proof, where Debian has none yet: installed from Debian's packages, started, and stopped again."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

from deploy.compose.docker import DockerError

_PACKAGES = ("docker.io", "docker-compose", "debootstrap", "iptables")
_START_S = 60.0


@contextmanager
def daemon() -> Iterator[str]:
    """Makes a daemon answer while the body runs; gives one sentence on whose it is. One that answers already is left as it is.

    Raises:
        DockerError: none answers, and none can be started.
    """
    if _answers():
        yield "a daemon answered already"
        return
    if os.geteuid() != 0:
        raise DockerError("no Docker daemon answers, and only root can start one")
    if shutil.which("dockerd") is None or shutil.which("debootstrap") is None:
        _install()
    log = subprocess.DEVNULL
    process = subprocess.Popen(["dockerd"], stdout=log, stderr=log, start_new_session=True)
    try:
        end = time.monotonic() + _START_S
        while not _answers():
            if process.poll() is not None or time.monotonic() > end:
                raise DockerError("dockerd did not come up; run it by hand to see why")
            time.sleep(0.2)
        yield "started here"
    finally:
        process.terminate()
        process.wait(timeout=_START_S)


def _answers() -> bool:
    docker = shutil.which("docker")
    return docker is not None and subprocess.run([docker, "info"], capture_output=True, timeout=30).returncode == 0


def _install() -> None:
    if shutil.which("apt-get") is None:
        raise DockerError("Docker is not installed, and this is no Debian, whose packages could be installed")
    for command in (["apt-get", "update", "-qq"], ["apt-get", "install", "-y", "-qq", "--no-install-recommends", *_PACKAGES]):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        if done.returncode:
            raise DockerError(f"`{' '.join(command[:2])}` failed: {done.stderr[-500:]}")
