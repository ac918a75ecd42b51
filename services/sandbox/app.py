"""Builds the sandbox from its settings: the only place that knows all its parts."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from prometheus_client import start_http_server
from pydantic import ValidationError

from services.sandbox.api import DOMAIN, SERVICE, ToolRunnerDoor, explain
from services.sandbox.drivers.bwrap import BwrapDriver
from services.sandbox.drivers.driver import Driver
from services.sandbox.metrics import SandboxMetrics
from services.sandbox.pool import ServerPool
from services.sandbox.runner import Runner
from services.sandbox.sessions import Sessions
from services.sandbox.settings import SandboxSettings
from services.sandbox.toolsets import Toolsets
from services.shared.chassis.grpc import Edge, GrpcServer, until_terminated
from services.shared.chassis.logging import configure_logging
from services.shared.chassis.telemetry import configure_tracing
from services.shared.contracts.errors import Unavailable
from services.shared.pb.toolrunner.v1 import toolrunner_pb2_grpc as pb_grpc

log = structlog.get_logger()

# While nothing can be run, the service looks this often whether somebody has repaired it. Seconds.
REPAIR_INTERVAL_S = 5.0


@dataclass(frozen=True)
class Sandbox:
    """A built sandbox service."""

    runner: Runner
    pool: ServerPool
    metrics: SandboxMetrics
    server: GrpcServer
    driver: Driver
    toolsets: Toolsets


def create_driver(settings: SandboxSettings) -> BwrapDriver:
    """The driver on this machine; nothing is tried yet."""
    return BwrapDriver(
        bwrap=settings.bwrap,
        programs={"node": settings.node} if settings.node else {},
        workspace=settings.workspace_dir.resolve(),
        sandbox_uid=settings.sandbox_uid,
        limits=settings.ceiling(),
    )


def create_sandbox(settings: SandboxSettings, *, driver: Driver | None = None) -> Sandbox:
    """The service, not started. Call it inside a running event loop: gRPC binds to that."""
    driver = driver or create_driver(settings)
    metrics = SandboxMetrics()
    toolsets = Toolsets(settings.toolsets_dir, settings.ceiling())
    sessions = Sessions(max_sessions=settings.max_sessions, idle_s=settings.idle_s, max_age_s=settings.max_age_s)
    pool = ServerPool(driver=driver, workspace=settings.workspace_dir.resolve(), sessions=sessions, metrics=metrics)
    runner = Runner(driver=driver, toolsets=toolsets, pool=pool, metrics=metrics)
    server = GrpcServer(
        service=SERVICE,
        interceptor=Edge(domain=DOMAIN, explain=explain),
        address=f"{settings.host}:{settings.port}",
        max_request_bytes=settings.max_body_bytes,
        # Contents and structured result are cut to size separately.
        max_reply_bytes=2 * settings.max_output_bytes,
    )
    pb_grpc.add_ToolRunnerServiceServicer_to_server(ToolRunnerDoor(runner), server.server)
    return Sandbox(runner=runner, pool=pool, metrics=metrics, server=server, driver=driver, toolsets=toolsets)


@asynccontextmanager
async def running(settings: SandboxSettings, *, driver: Driver | None = None) -> AsyncGenerator[Sandbox, None]:
    """The service, answering: probed, swept, and drained at the end.

    Raises:
        Unavailable: the port is taken, or the workspace cannot be made.
    """
    make_workspace(settings.workspace_dir, settings.sandbox_uid)
    sandbox = create_sandbox(settings, driver=driver)
    await sandbox.server.start()
    await _probe(sandbox)
    tasks = [asyncio.create_task(sandbox.pool.sweep()), asyncio.create_task(_keep_probing(sandbox, settings.probe_interval_s))]
    try:
        yield sandbox
    finally:
        for task in tasks:
            task.cancel()
        await sandbox.server.stop(settings.drain_timeout_s)
        await sandbox.pool.aclose()


def make_workspace(workspace: Path, sandbox_uid: int) -> None:
    """Creates the workspace if it is missing, owned by whom tools run as. One that exists belongs to somebody: it is left alone.

    Raises:
        Unavailable: it cannot be created.
    """
    if workspace.exists():
        return
    try:
        workspace.mkdir(parents=True)
        if os.geteuid() == 0:
            os.chown(workspace, sandbox_uid, sandbox_uid)
    except OSError as error:
        raise Unavailable(
            f"the workspace {workspace} cannot be created: {error.strerror}; set AGENTFLUX_SANDBOX_WORKSPACE_DIR"
        ) from None


async def _probe(sandbox: Sandbox) -> None:
    before = sandbox.runner.capabilities
    found = await sandbox.runner.probe()
    await sandbox.server.set_serving(not found.problem)
    if found != before:
        level = log.error if found.problem else log.info
        level("sandbox probed", driver=found.driver, problem=found.problem, not_enforced=list(found.not_enforced))


async def _keep_probing(sandbox: Sandbox, interval_s: float) -> None:
    while True:
        await asyncio.sleep(min(interval_s, REPAIR_INTERVAL_S) if sandbox.runner.capabilities.problem else interval_s)
        try:
            await _probe(sandbox)
        except Exception:
            log.exception("the self-probe failed")
            await sandbox.server.set_serving(False)


async def serve(settings: SandboxSettings) -> None:
    """Runs the service until SIGTERM."""
    async with running(settings) as sandbox:
        if settings.metrics_port:
            start_http_server(settings.metrics_port, addr=settings.host, registry=sandbox.metrics.registry)
        log.info("sandbox listening", host=settings.host, port=sandbox.server.port)
        await until_terminated()


def main() -> int:
    """Entry point; the exit status is 1 when the service could not start."""
    try:
        settings = SandboxSettings()
    except ValidationError as error:
        print(f"the sandbox's settings cannot be used: {error}", file=sys.stderr)
        return 1
    configure_logging("sandbox", settings.log_level)
    configure_tracing("sandbox", settings.otlp_endpoint)
    try:
        asyncio.run(serve(settings))
    except (Unavailable, OSError) as error:
        log.error("the sandbox cannot start", error=str(error))
        return 1
    return 0
