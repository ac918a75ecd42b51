"""Brings the local deployment up, proves it with one real request, and takes it down."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil

from deploy.local import base_model, starters
from deploy.local.faults import Fault
from deploy.local.plan import PORTS, REPOSITORY, LocalSettings
from deploy.local.preflight import check_library, check_node, check_ports, check_sandbox, check_space, find_bwrap, find_valkey
from deploy.local.progress import Progress
from deploy.local.supervisor import STOP_TIMEOUT_S, State, read_state

STARTERS = REPOSITORY / "deploy" / "adapters"

# A service that ended this often without ever running steadily will not come up by itself.
HOPELESS_EXITS = 3


def up(settings: LocalSettings, progress: Progress) -> bool:
    """Returns when every service is ready; False when they already ran.

    Raises:
        Fault: what is wrong with the machine, or which service does not come up and what it said last.
    """
    if read_state(settings.run_dir):
        progress.say(f"already running ({settings.run_dir}); checking that every service is ready")
        _wait_until_ready(settings, progress)
        return False
    _prepare(settings, progress)
    progress.say("starting valkey, engine, sandbox, callcache, selector, arguments, gateway")
    _start_supervisor(settings)
    _wait_until_ready(settings, progress)
    return True


def down(settings: LocalSettings, progress: Progress) -> None:
    """Stops the supervisor, and with it exactly what it started."""
    state = read_state(settings.run_dir)
    if state is None:
        progress.say(f"nothing is running in {settings.run_dir}")
        return
    supervisor = psutil.Process(state.supervisor)
    supervisor.send_signal(signal.SIGTERM)
    progress.say("letting requests in flight finish, then stopping")
    try:
        supervisor.wait(timeout=STOP_TIMEOUT_S * 2)
    except psutil.TimeoutExpired:
        # Its children die with it.
        supervisor.kill()
    progress.say("stopped")


def _prepare(settings: LocalSettings, progress: Progress) -> None:
    check_node()
    if settings.model_dir is None:
        check_library()
    check_sandbox(find_bwrap())
    needed = [name for name in PORTS if not (name == "valkey" and settings.redis_url)]
    check_ports({name: settings.port(name) for name in needed}, offset=settings.port_offset)
    if settings.model_dir is None and not settings.model.exists():
        check_space(settings.run_dir.absolute())
    if settings.model_dir is None:
        base_model.prepare(settings.model, say=progress.say)
    elif not (settings.model / "config.json").is_file():
        raise Fault(f"{settings.model} holds no model (config.json is missing)", "set AGENTFLUX_MODEL_DIR to a model folder")
    if settings.model_dir is None:
        starters.seed(STARTERS, settings.store, say=progress.say)
    settings.store.mkdir(parents=True, exist_ok=True)
    _private(settings.engine_socket.parent)
    if not settings.workspace_dir.exists():
        seeds = REPOSITORY / "deploy" / "toolsets" / "filesystem" / "workspace"
        shutil.copytree(seeds, settings.workspace_dir)
        _hand_to_sandbox(settings.workspace_dir)


def _private(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.geteuid():
        raise Fault(f"{folder} belongs to somebody else", f"remove it, or set AGENTFLUX_RUN_DIR to a path shorter than {folder}")
    folder.chmod(0o700)


def _hand_to_sandbox(workspace: Path) -> None:
    """Under root, tools run as another user, to whom the workspace that we made here has to belong."""
    if os.geteuid() != 0:
        return
    from services.sandbox.settings import SandboxSettings

    uid = SandboxSettings().sandbox_uid
    for path in (workspace, *workspace.rglob("*")):
        os.chown(path, uid, uid)


def _start_supervisor(settings: LocalSettings) -> None:
    (settings.run_dir / "logs").mkdir(parents=True, exist_ok=True)
    valkey = [] if settings.redis_url else ["--valkey", str(find_valkey())]
    with (settings.run_dir / "logs" / "supervisor.log").open("ab") as log:
        subprocess.Popen(
            [sys.executable, "-m", "deploy.local", "supervise", *valkey],
            cwd=REPOSITORY, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True,
        )  # fmt: skip


def _wait_until_ready(settings: LocalSettings, progress: Progress) -> None:
    deadline = time.monotonic() + settings.ready_timeout_s
    shown: dict[str, str] = {}
    while time.monotonic() < deadline:
        state = read_state(settings.run_dir)
        checks = _checks(settings)
        for name, says in checks.items():
            if shown.get(name) != says:
                progress.say(f"{name}: {says}")
                shown[name] = says
        if checks and all(says == "ok" for says in checks.values()):
            return
        if state and (broken := next((child for child in state.children.values() if child.exits >= HOPELESS_EXITS), None)):
            raise _does_not_come_up(settings, broken.name, f"ended {broken.exits} times, last with code {broken.last_exit}")
        progress.wait(0.5)
    waiting = next((name for name, says in shown.items() if says != "ok"), "gateway")
    raise _does_not_come_up(
        settings, waiting, f"was not ready within {settings.ready_timeout_s:g} s: {shown.get(waiting, 'silent')}"
    )


def _checks(settings: LocalSettings) -> dict[str, str]:
    """What each service says of itself; the gateway's own door comes last, because it answers for all."""
    checks: dict[str, str] = {}
    # Of those behind it the gateway only knows that they answer: adapters may still have to be warmed.
    for name in ("engine", "selector", "arguments"):
        own = _get_json(f"http://127.0.0.1:{settings.port(name)}/readyz")
        if own is not None:
            checks[name] = next((_plainly(says) for says in own["checks"].values() if says != "ok"), "ok")
    gateway = _get_json(f"http://127.0.0.1:{settings.port('gateway')}/readyz")
    if gateway is None:
        return {**checks, "gateway": "starting"}
    for name, says in gateway["checks"].items():
        if checks.get(name, "ok") == "ok":
            checks[name] = _plainly(says)
    callcache = _get_json(f"http://127.0.0.1:{settings.port('callcache')}/readyz")
    if callcache is not None:
        checks["valkey"] = next((says for says in callcache["checks"].values() if says != "ok"), "ok")
    return {**checks, "gateway": "ok"}


def _plainly(says: str) -> str:
    # Before a service listens there is nothing wrong with it yet; `up` watches whether its process lives.
    return "starting" if "cannot be reached" in says else says


def _get_json(url: str) -> dict[str, dict[str, str]] | None:
    try:
        body: dict[str, dict[str, str]] = httpx.get(url, timeout=5, trust_env=False).json()
    except (httpx.HTTPError, json.JSONDecodeError):
        return None
    return body


def _does_not_come_up(settings: LocalSettings, name: str, what: str) -> Fault:
    path = settings.run_dir / "logs" / f"{name}.log"
    lines = path.read_text(errors="replace").splitlines()[-8:] if path.exists() else []
    said = "\n".join(f"    {line[:300]}" for line in lines)
    return Fault(f"the {name} {what}. Its last words:\n{said}\n ", f"read {path}, mend it, then `make down` and `make up`")


def status(settings: LocalSettings, progress: Progress) -> None:
    """Prints each process with its port, memory and number of restarts, and what is not ready."""
    state: State | None = read_state(settings.run_dir)
    if state is None:
        progress.say(f"nothing is running in {settings.run_dir}")
        return
    for child in state.children.values():
        progress.say(f"{child.name:10} port {child.port:5}  pid {child.pid or '-':>7}  {_memory(child.pid):>5} MiB")
    unready = {name: says for name, says in _checks(settings).items() if says != "ok"}
    for name, says in unready.items():
        progress.say(f"{name}: {says}")
    if not unready:
        progress.say("every service is ready")


def _memory(pid: int | None) -> int:
    """Resident memory of a process and all its descendants, in MiB."""
    try:
        process = psutil.Process(pid) if pid else None
        family = [process, *process.children(recursive=True)] if process else []
        return sum(member.memory_info().rss for member in family) // 2**20
    except psutil.Error:
        return 0
