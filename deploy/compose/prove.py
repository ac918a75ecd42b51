"""Runs the whole deployment in containers and proves it, `make compose-proof`: build, up, a tool call, an adapter, faults, down.

It asks no image registry and needs no GPU. On a Debian machine without Docker it installs and starts one (as root), and stops it
again. It leaves the images, which the next run builds upon; --purge removes them, too. Times go to build/bench/compose.json.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from openai import OpenAI

from deploy.compose.build import IMAGES, PYTHON_BASE, VALKEY, build_all
from deploy.compose.certificates import write_certificates
from deploy.compose.daemon import daemon
from deploy.compose.docker import REPOSITORY, Docker, DockerError, Project, find_docker
from deploy.compose.faults import healthy, kill, unexpected_reach

PORT = 18030
QUESTION = "Read the file README.txt"
KILLED = ("valkey", "callcache", "sandbox", "selector", "arguments", "gateway", "engine-cpu")
READY_TIMEOUT_S = 900.0
SERVED_TIMEOUT_S = 120.0

# Runs in the trainer's container: the selector that serves, its weights ever so slightly changed, becomes a new adapter and a new
# release. Training one would take far longer; how it reaches those who serve is the same.
_PUBLISH = """
import shutil, tempfile
from pathlib import Path
from safetensors.torch import load_file, save_file
from services.shared.clients.adapter_files import hashes_of
from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.adapters import AdapterSet
store = AdapterStore(Path("/var/lib/agentflux/adapters"))
serving = store.manifest("filesystem").current.adapters
card = store.verify(serving.selector)
with tempfile.TemporaryDirectory() as folder:
    folder = Path(folder)
    shutil.copyfile(store.root / serving.selector / "adapter_config.json", folder / "adapter_config.json")
    weights = load_file(store.root / serving.selector / "adapter_model.safetensors")
    changed = {name: weight * 1.02 for name, weight in weights.items()}
    save_file(changed, folder / "adapter_model.safetensors")
    name = store.publish(folder, card.model_copy(update={"files": hashes_of(folder)}))
store.promote("filesystem", AdapterSet(selector=name, arguments=serving.arguments), note="compose proof")
print(name)
"""

# Runs in the gateway's container, which alone may speak to the sandbox.
_RUN_TOOL = """
import asyncio, sys
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.execution import ToolCallSpec
async def main():
    client = SandboxClient("sandbox:8034")
    call = ToolCallSpec(toolset="filesystem", tool=sys.argv[1], arguments=sys.argv[2], session_id="proof", call_id="proof")
    result = await client.call_tool(call, timeout_s=60)
    await client.aclose()
    print(result.outcome, result.text)
asyncio.run(main())
"""

# Runs in a sandbox whose callers have to show a certificate: what who has one is told, then who has none.
_WITH_AND_WITHOUT_CERTIFICATE = """
import asyncio
from pathlib import Path
from services.shared.chassis.tls import TlsFiles
from services.shared.clients.sandbox import SandboxClient
async def main():
    for tls in (TlsFiles(Path("/tls/tls.crt"), Path("/tls/tls.key"), Path("/tls/ca.crt")), None):
        client = SandboxClient("localhost:8034", tls=tls)
        print(await client.ready() is None)
        await client.aclose()
asyncio.run(main())
"""

# Runs in each image: how many components each of its bills of materials has.
_BILLS = """
import json, pathlib
bills = sorted(pathlib.Path("/opt/venv/share/sbom").glob("*.cdx.json"))
print(", ".join(f"{bill.name.split('.')[0]} {len(json.loads(bill.read_text())['components'])}" for bill in bills))
"""


@dataclass(frozen=True)
class Row:
    """One line of the table."""

    step: str
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Turn:
    """What one turn decided: the tool, its arguments as JSON text, and the adapter that voted."""

    tool: str
    arguments: str
    adapter: str


class Proof:
    """The steps, in the order of their calling; each adds rows to the table."""

    def __init__(self, docker: Docker, rows: list[Row], *, build: bool) -> None:
        self.docker = docker
        self.rows = rows
        self._build = build
        environment = {"AGENTFLUX_PORT": str(PORT), "AGENTFLUX_VALKEY_IMAGE": VALKEY}
        self.project = Project(docker, "agentflux-proof", environment)
        self._client = OpenAI(base_url=f"http://127.0.0.1:{PORT}/v1", api_key="proof", max_retries=0, timeout=60)

    def run(self) -> None:
        """Everything; what was brought up is taken down in any case."""
        if self._build:
            for tag, seconds in build_all(self.docker, stand_in=True).items():
                self._add(f"build {tag}", seconds, self._size(tag))
        try:
            self._up()
            self._first_call()
            self._networks()
            self._certificates()
            self._publish()
            self._bills()
            for service in KILLED:
                recovery = kill(self.project, service, self._turn)
                self._add(f"kill {service}: well again", recovery.seconds, f"{recovery.failed_turns} turns failed")
        except DockerError:
            print(self.project.compose("logs", "--no-color", "--tail=40"))
            raise
        finally:
            with self._timed("down"):
                self.project.compose("down", "--volumes", "--timeout", "60")
        if left := self.project.leftovers():
            raise DockerError(f"down left something behind: {left}")

    def _up(self) -> None:
        if left := self.project.leftovers():
            raise DockerError(f"something of an earlier run is there: {left}; remove it first")
        started = time.monotonic()
        self.project.compose("up", "--detach", "--no-build")
        self._add("up: containers started", time.monotonic() - started)
        self._until(self._answers, READY_TIMEOUT_S, "the first turn did not succeed")
        self._add("up: first tool call answered", time.monotonic() - started)

    def _first_call(self) -> None:
        with self._timed("one turn"):
            turn = self._turn()
        with self._timed("its call, run in the sandbox"):
            said = self.docker.run("exec", self._id("gateway"), "python", "-c", _RUN_TOOL, turn.tool, turn.arguments)
        self._note(f"{turn.tool}({turn.arguments}) by {turn.adapter}; {said.split(maxsplit=1)[0]}")
        if not said.startswith("ok "):
            raise DockerError(f"the sandbox did not run {turn}: {said[:500]}")

    def _networks(self) -> None:
        with self._timed("networks as drawn"):
            if wrong := unexpected_reach(self.project):
                raise DockerError(f"the networks are not as drawn: {'; '.join(wrong)}")

    def _certificates(self) -> None:
        """Beside the sandbox that serves, one with TLS: its health check shows no certificate."""
        settings = {
            "TRAJECTORY": "off",
            "TLS_CERTIFICATE": "/tls/tls.crt",
            "TLS_KEY": "/tls/tls.key",
            "TLS_CLIENT_CA": "/tls/ca.crt",
        }
        given = [flag for name, value in settings.items() for flag in ("-e", f"AGENTFLUX_SANDBOX_{name}={value}")]
        with tempfile.TemporaryDirectory(prefix="agentflux-certificates-") as folder:
            write_certificates(Path(folder))
            started = time.monotonic()
            said = self.project.compose("run", "--detach", "--no-deps", "-v", f"{folder}:/tls:ro", *given, "sandbox")
            container = said.split()[-1]
            try:
                self._until(
                    lambda: healthy(self.project, container), SERVED_TIMEOUT_S, "a sandbox with certificates is not healthy"
                )
                self._add("a sandbox with certificates is healthy", time.monotonic() - started)
                heard = self.docker.run("exec", container, "python", "-c", _WITH_AND_WITHOUT_CERTIFICATE).split()
            finally:
                self.docker.run("rm", "--force", container)
        if heard != ["True", "False"]:
            raise DockerError(f"with a certificate and without one, the sandbox can be used: {heard}")

    def _publish(self) -> None:
        started = time.monotonic()
        trainer = Project(self.docker, self.project.name, self.project.environment, ("cpu", "train"))
        published = trainer.compose("run", "--rm", "--no-deps", "-T", "--entrypoint", "python", "trainer", "-c", _PUBLISH)
        self._add("publish an adapter from the trainer's container", time.monotonic() - started)
        started, name = time.monotonic(), published.split()[-1]
        self._until(lambda: self._turn().adapter == name, SERVED_TIMEOUT_S, f"{name} does not serve")
        self._add("until it serves", time.monotonic() - started, name)
        network = self.docker.inspect(f"{self.project.name}_train")
        if network is None or not network["Internal"]:
            raise DockerError("the trainer's network is not an internal one of its own")

    def _bills(self) -> None:
        with self._timed("bills of materials"):
            for image in IMAGES:
                said = self.docker.run("run", "--rm", "--network=none", "--entrypoint=python", image, "-c", _BILLS).strip()
                self._note(f"{image}: {said}")
                if not {"python", "system"} <= set(said.replace(",", "").split()):
                    raise DockerError(f"{image} lacks a bill of materials: {said}")

    def _turn(self) -> Turn:
        raw = self._client.chat.completions.with_raw_response.create(
            model="filesystem", messages=[{"role": "user", "content": QUESTION}], max_tokens=128
        )
        calls: list[Any] = list(raw.parse().choices[0].message.tool_calls or ())
        if not calls:
            raise DockerError(f"no tool was called for {QUESTION!r}")
        adapter = json.loads(raw.headers["x-agentflux-selection"])["adapter"]
        return Turn(calls[0].function.name, calls[0].function.arguments, adapter)

    def _answers(self) -> bool:
        try:
            return bool(self._turn().adapter)
        except Exception:
            # Not up yet, in whatever way.
            return False

    def _until(self, true: Callable[[], bool], timeout_s: float, complaint: str) -> None:
        end = time.monotonic() + timeout_s
        while not true():
            if time.monotonic() > end:
                raise DockerError(f"{complaint} within {timeout_s:g} s")
            time.sleep(0.5)

    def _id(self, service: str) -> str:
        return self.project.containers()[service]

    def _size(self, tag: str) -> str:
        size, base = ((self.docker.inspect(name) or {}).get("Size", 0) for name in (tag, PYTHON_BASE))
        return f"{size / 1e6:.0f} MB" if tag == PYTHON_BASE else f"{(size - base) / 1e6:.0f} MB over the base"

    def _add(self, step: str, seconds: float, note: str = "") -> None:
        self.rows.append(Row(step, round(seconds, 1), note))
        print(f"{seconds:8.1f} s  {step}  {note}", flush=True)

    def _note(self, note: str) -> None:
        print(f"            {note}", flush=True)

    @contextmanager
    def _timed(self, step: str) -> Iterator[None]:
        started = time.monotonic()
        yield
        self._add(step, time.monotonic() - started)


def table(rows: list[Row]) -> str:
    """The rows under each other, as Markdown."""
    lines = [f"| {row.step} | {row.seconds:.1f} s | {row.note} |" for row in rows]
    return "\n".join(["| step | time | |", "|---|---|---|", *lines])


def main() -> None:
    """Runs the proof; the exit status is 1 when a step failed."""
    parser = argparse.ArgumentParser(prog="python -m deploy.compose.prove", description=__doc__)
    parser.add_argument("--no-build", action="store_true", help="the images are there")
    parser.add_argument("--purge", action="store_true", help="remove the images at the end")
    given = parser.parse_args()
    rows: list[Row] = []
    try:
        with daemon() as whose:
            docker = find_docker()
            print(f"docker: {whose}; {docker.docker}, {' '.join(docker.compose)}")
            Proof(docker, rows, build=not given.no_build).run()
            if given.purge:
                docker.run("image", "rm", *IMAGES, VALKEY, PYTHON_BASE)
    except DockerError as error:
        print(f"\n{table(rows)}")
        raise SystemExit(f"compose proof: {error}") from None
    _write(rows, REPOSITORY / "build" / "bench" / "compose.json")


def _write(rows: list[Row], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    measured = {"cores": os.cpu_count(), "rows": [asdict(row) for row in rows]}
    path.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n")
    print(f"\n{table(rows)}\n\n{path}")


if __name__ == "__main__":
    main()
