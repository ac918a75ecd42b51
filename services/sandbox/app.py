"""Builds the sandbox from its settings: the only place that knows all its parts."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import structlog
from fastapi import FastAPI
from prometheus_client import CollectorRegistry

from services.sandbox.api import DOMAIN, SERVICE, ToolRunnerDoor, explain
from services.sandbox.crashes import CrashLoops
from services.sandbox.drivers.bwrap import BwrapDriver
from services.sandbox.drivers.driver import Driver
from services.sandbox.drivers.external import ExternalDriver
from services.sandbox.drivers.programs import Programs
from services.sandbox.drivers.proxy import EgressProxy
from services.sandbox.drivers.runsc import RunscDriver
from services.sandbox.functions.store import FunctionStore
from services.sandbox.limits import MIB
from services.sandbox.mcp_face.app import create_face, is_loopback, serving
from services.sandbox.metrics import SandboxMetrics
from services.sandbox.pool import ServerPool, Waiting
from services.sandbox.queue import FairQueue
from services.sandbox.runner import Runner
from services.sandbox.servers import Servers
from services.sandbox.sessions import Sessions
from services.sandbox.settings import SandboxSettings
from services.sandbox.toolsets import Toolsets
from services.sandbox.trajectory.asking import Asking
from services.sandbox.trajectory.log import TrajectoryLog
from services.sandbox.trajectory.store import TrajectoryFiles
from services.shared.chassis.collector import collect_seldom
from services.shared.chassis.grpc import Edge, GrpcServer, until_terminated
from services.shared.chassis.http import install_status
from services.shared.chassis.logging import configure_logging
from services.shared.chassis.settings import load
from services.shared.chassis.telemetry import configure_tracing
from services.shared.chassis.tls import CertificateTimes, TlsFiles
from services.shared.contracts.errors import Unavailable
from services.shared.pb.toolrunner.v1 import toolrunner_pb2_grpc as pb_grpc

log = structlog.get_logger()

# While nothing can be run, the service looks this often whether somebody has repaired it. Seconds.
REPAIR_INTERVAL_S = 5.0
# How old what health checks hear of a toolset may be. Seconds.
HEALTH_INTERVAL_S = 1.0


@dataclass(frozen=True)
class Sandbox:
    """A built sandbox service."""

    runner: Runner
    pool: ServerPool
    metrics: SandboxMetrics
    server: GrpcServer
    driver: Driver
    toolsets: Toolsets
    trajectories: TrajectoryLog
    functions: FunctionStore | None


def create_trajectories(settings: SandboxSettings, metrics: SandboxMetrics) -> TrajectoryLog:
    """The log of calls, not opened."""
    files = TrajectoryFiles(
        settings.trajectory_dir or settings.workspace_dir.resolve().parent / "trajectories",
        max_file_bytes=settings.trajectory_file_mb * MIB,
        max_bytes=settings.trajectory_max_mb * MIB,
        max_age_s=settings.trajectory_max_days * 86400,
    )
    return TrajectoryLog(
        None if settings.trajectory == "off" else files,
        asking=Asking(),
        required=settings.trajectory == "required",
        with_text=settings.trajectory_text,
        code_of=lambda error: explain(error).code.name,
        count=lambda outcome: metrics.trajectory_records.labels(outcome).inc(),
    )


def create_functions(settings: SandboxSettings) -> FunctionStore | None:
    """The functions that tenants register, not opened; None where nobody may."""
    if settings.functions_dir is None:
        return None
    return FunctionStore(
        settings.functions_dir.resolve(),
        ceiling=settings.ceiling(),
        per_tenant=settings.functions_per_tenant,
        own_at_once=settings.functions_own_at_once,
    )


def open_functions(functions: FunctionStore | None) -> None:
    """Makes ready what was registered before.

    Raises:
        Unavailable: the directory cannot be written.
    """
    try:
        if functions is not None:
            log.info("functions", registered=functions.open())
    except OSError as error:
        raise Unavailable(
            f"registered functions cannot be kept in {error.filename}: {error.strerror}; set AGENTFLUX_SANDBOX_FUNCTIONS_DIR"
        ) from None


def create_driver(settings: SandboxSettings, metrics: SandboxMetrics | None = None) -> Driver:
    """The driver that the settings name; nothing is tried yet."""
    programs = Programs({"node": settings.node} if settings.node else {})
    workspace, uid, limits = settings.workspace_dir.resolve(), settings.sandbox_uid, settings.ceiling()
    egress = EgressProxy(metrics or SandboxMetrics())
    match settings.driver:
        case "bwrap":
            return BwrapDriver(
                bwrap=settings.bwrap, programs=programs, workspace=workspace, sandbox_uid=uid, limits=limits, egress=egress
            )
        case "runsc":
            return RunscDriver(
                runsc=settings.runsc, programs=programs, workspace=workspace, sandbox_uid=uid, limits=limits, egress=egress
            )
        case "external":
            return ExternalDriver(programs=programs, workspace=workspace, limits=limits)


def create_sandbox(settings: SandboxSettings, *, driver: Driver | None = None) -> Sandbox:
    """The service, not started. Call it inside a running event loop: gRPC binds to that."""
    metrics = SandboxMetrics()
    driver = driver or create_driver(settings, metrics)
    toolsets = Toolsets(settings.toolsets_dir, settings.ceiling(), settings.secrets_dir)
    sessions = Sessions(
        max_sessions=settings.max_sessions,
        idle_s=settings.idle_s,
        max_age_s=settings.max_age_s,
        calls_at_once=settings.calls_per_server,
        max_calls=settings.max_calls,
    )
    crashes = CrashLoops(limit=settings.crash_limit, max_rest_s=settings.max_crash_rest_s)
    workspace = settings.workspace_dir.resolve()
    servers = Servers(driver=driver, workspace=workspace, crashes=crashes, metrics=metrics)
    queue: FairQueue[Waiting] = FairQueue(size=settings.queue_size, share=settings.queue_share)
    pool = ServerPool(servers=servers, sessions=sessions, queue=queue, metrics=metrics)
    trajectories = create_trajectories(settings, metrics)
    functions = create_functions(settings)
    runner = Runner(
        driver=driver, workspace=workspace, toolsets=toolsets, pool=pool, metrics=metrics,
        trajectories=trajectories, functions=functions,
    )  # fmt: skip
    tls = tls_of(settings)
    CertificateTimes(tls, metrics.registry)
    server = GrpcServer(
        service=SERVICE,
        interceptor=Edge(domain=DOMAIN, explain=explain),
        address=address_of(settings),
        tls=tls,
        max_request_bytes=settings.max_body_bytes,
        # Contents and structured result are cut to size separately.
        max_reply_bytes=2 * settings.max_output_bytes,
    )
    pb_grpc.add_ToolRunnerServiceServicer_to_server(ToolRunnerDoor(runner, functions), server.server)
    return Sandbox(
        runner=runner, pool=pool, metrics=metrics, server=server, driver=driver, toolsets=toolsets,
        trajectories=trajectories, functions=functions,
    )  # fmt: skip


def create_status(runner: Runner, registry: CollectorRegistry) -> FastAPI:
    """/livez, /readyz and /metrics. Who probes a container has no client certificate, and so cannot ask gRPC's own health."""
    app = FastAPI(openapi_url=None)

    async def probe() -> str | None:
        return runner.capabilities.problem or None

    install_status(app, registry, required={"sandbox": probe})
    return app


def address_of(settings: SandboxSettings) -> str:
    """Where gRPC listens.

    Raises:
        Unavailable: everybody on the network could run tools there.
    """
    if settings.socket is not None:
        return f"unix:{settings.socket.resolve()}"
    if not (is_loopback(settings.host) or settings.tls_client_ca or settings.private_network):
        raise Unavailable(
            f"the sandbox does not listen on {settings.host}, where anybody could run tools: ask callers for certificates with "
            "AGENTFLUX_SANDBOX_TLS_CLIENT_CA, or say with AGENTFLUX_SANDBOX_PRIVATE_NETWORK=true that only callers can reach it"
        )
    return f"{settings.host}:{settings.port}"


def tls_of(settings: SandboxSettings) -> TlsFiles | None:
    """The server's files for TLS; None without TLS.

    Raises:
        Unavailable: one of them is missing.
    """
    files = TlsFiles(settings.tls_certificate, settings.tls_key, settings.tls_client_ca)
    if files == TlsFiles(None, None, None):
        return None
    if not (files.certificate and files.key):
        raise Unavailable("TLS needs both AGENTFLUX_SANDBOX_TLS_CERTIFICATE and AGENTFLUX_SANDBOX_TLS_KEY")
    return files


@asynccontextmanager
async def running(settings: SandboxSettings, *, driver: Driver | None = None) -> AsyncGenerator[Sandbox, None]:
    """The service, answering: probed, swept, and drained at the end.

    Raises:
        Unavailable: a port is taken, the workspace cannot be made, or the trajectory log cannot be kept.
    """
    make_workspace(settings.workspace_dir, settings.sandbox_uid)
    sandbox = create_sandbox(settings, driver=driver)
    await sandbox.server.start()
    if settings.socket is not None:
        settings.socket.chmod(0o660)
    try:
        sandbox.trajectories.open()
        open_functions(sandbox.functions)
    except Unavailable:
        sandbox.trajectories.close()
        await sandbox.server.stop(0)
        raise
    await _probe(sandbox)
    tasks = [
        asyncio.create_task(sandbox.trajectories.keep(settings.trajectory_sync_s)),
        asyncio.create_task(sandbox.pool.sweep(sandbox.runner.versions)),
        asyncio.create_task(sandbox.pool.keep_warm(sandbox.runner.startable)),
        asyncio.create_task(_keep_probing(sandbox, settings.probe_interval_s)),
        asyncio.create_task(_keep_telling(sandbox)),
    ]
    status = create_status(sandbox.runner, sandbox.metrics.registry)
    async with AsyncExitStack() as until_the_end:
        try:
            if settings.metrics_port:
                await until_the_end.enter_async_context(serving(status, settings, settings.metrics_port))
            async with sandbox.metrics.loop_lag.measured():
                yield sandbox
        finally:
            status.state.drain.has_begun = True
            for task in tasks:
                task.cancel()
            await sandbox.server.stop(settings.drain_timeout_s)
            await sandbox.pool.aclose()
            sandbox.trajectories.close()


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


async def _keep_telling(sandbox: Sandbox) -> None:
    """The health of each toolset, as `toolset/<name>`."""
    told: dict[str, bool] = {}
    while True:
        try:
            ready = {f"toolset/{info.name}": info.ready for info in sandbox.runner.list_toolsets()}
            for name, is_ready in {**dict.fromkeys(told, False), **ready}.items():
                if told.get(name) != is_ready:
                    await sandbox.server.set_part(name, is_ready)
            told = ready
        except Exception:
            log.exception("the health of the toolsets is not known")
        await asyncio.sleep(HEALTH_INTERVAL_S)


async def serve(settings: SandboxSettings) -> None:
    """Runs the service until SIGTERM."""
    async with running(settings) as sandbox, AsyncExitStack() as face:
        if settings.mcp_port:
            await face.enter_async_context(serving(create_face(sandbox.runner, settings), settings, settings.mcp_port))
        log.info("sandbox listening", address=address_of(settings), port=sandbox.server.port, mcp_port=settings.mcp_port)
        await until_terminated()


def wait_without_threads() -> None:
    """Has asyncio wait for processes as newer Pythons do by themselves; the default of 3.11 starts a thread for each."""
    if sys.version_info < (3, 12):
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())


def main() -> int:
    """Entry point; the exit status is 1 when the service could not start."""
    settings = load(SandboxSettings)
    configure_logging("sandbox", settings.log_level)
    configure_tracing("sandbox", settings.otlp_endpoint)
    wait_without_threads()
    collect_seldom()
    try:
        asyncio.run(serve(settings))
    except (Unavailable, OSError) as error:
        log.error("the sandbox cannot start", error=str(error))
        return 1
    return 0
