"""The real drivers, probed, for tests that hold for all of them."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from services.sandbox.drivers.bwrap import BwrapDriver
from services.sandbox.drivers.driver import Driver
from services.sandbox.drivers.programs import Programs
from services.sandbox.drivers.proxy import EgressProxy
from services.sandbox.drivers.runsc import RunscDriver
from services.sandbox.limits import Limits
from services.sandbox.metrics import SandboxMetrics

NO_RUNSC = shutil.which("runsc") is None or os.geteuid() != 0
DRIVERS = [
    "bwrap",
    pytest.param("runsc", marks=pytest.mark.skipif(NO_RUNSC, reason="gVisor is NOT tested here: no runsc in PATH, or not root")),
]


def unprobed(name: str, workspace: Path, egress: EgressProxy | None = None) -> Driver:
    """The driver `name` on a workspace that its user may write."""
    workspace.mkdir(exist_ok=True)
    workspace.chmod(0o777)
    programs, egress = Programs({}), egress or EgressProxy(SandboxMetrics())
    if name == "bwrap":
        return BwrapDriver(bwrap=None, programs=programs, workspace=workspace, sandbox_uid=65532, limits=Limits(), egress=egress)
    return RunscDriver(runsc=None, programs=programs, workspace=workspace, sandbox_uid=65532, limits=Limits(), egress=egress)


async def made(name: str, workspace: Path, egress: EgressProxy | None = None) -> Driver:
    """The same, ready to start something."""
    driver = unprobed(name, workspace, egress)
    found = await driver.probe()
    assert not found.problem, found.problem
    return driver
