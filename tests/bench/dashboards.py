"""A small real load, scraped by a real Prometheus, and the accuracy board's picture of it.

Gateway, selector, argument service and call cache are the real ones, in front of the talking engine of the tests, and the sandbox
is the real one with the filesystem server; needs `prometheus` on the PATH (Debian has it) and matplotlib. Takes `--minutes`.

    python -m tests.bench.dashboards --minutes 3
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import subprocess
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import httpx
import prometheus_client
import yaml

from deploy.grafana.picture import draw
from deploy.local.plan import REPOSITORY
from services.callcache.app import create_app as callcache_app
from services.callcache.settings import CallCacheSettings
from services.sandbox.settings import SandboxSettings
from services.shared.contracts.execution import ToolCallSpec
from services.shared.contracts.tools import JsonObject
from tests.sandbox.conftest import served as served_sandbox
from tests.shared.serving import served
from tests.stack import running_stack

SCRAPE_S = 5
PORT = 19090
FILES = ["read_text_file", "list_directory", "write_file", "get_file_info"]


async def run(minutes: float) -> None:
    """The load beside its Prometheus, then the picture."""
    async with AsyncExitStack() as stack:
        callcache = await stack.enter_async_context(served(callcache_app(CallCacheSettings(port=0))))
        services = await stack.enter_async_context(running_stack(callcache_url=callcache))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        toolsets = REPOSITORY / "deploy" / "toolsets"
        settings = SandboxSettings(port=0, toolsets_dir=toolsets, workspace_dir=folder / "workspace", drain_timeout_s=0)
        sandbox, client = await stack.enter_async_context(served_sandbox(settings))
        server, _ = prometheus_client.start_http_server(0, addr="127.0.0.1", registry=sandbox.metrics.registry)
        stack.callback(server.shutdown)
        targets = [services.url, services.selector, services.arguments, callcache, f"http://127.0.0.1:{server.server_port}"]
        stack.callback(_stop, _prometheus(folder, targets))
        await _load(services.url, client, until=time.monotonic() + minutes * 60)
        path = await asyncio.to_thread(draw, "accuracy", f"http://127.0.0.1:{PORT}", minutes=minutes, window="30s")
        print(path, path.stat().st_size, "bytes")


def _prometheus(folder: Path, targets: list[str]) -> subprocess.Popen[bytes]:
    names = ["gateway", "selector", "arguments", "callcache", "sandbox"]
    jobs = [
        {"job_name": name, "static_configs": [{"targets": [url.removeprefix("http://")]}]}
        for name, url in zip(names, targets, strict=True)
    ]
    config = {
        "global": {"scrape_interval": f"{SCRAPE_S}s", "evaluation_interval": f"{SCRAPE_S}s"},
        "rule_files": [str(REPOSITORY / "deploy" / "prometheus" / "rules.yaml")],
        "scrape_configs": jobs,
    }
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config))
    command = ["prometheus", f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"]
    with (folder / "log").open("wb") as log:
        return subprocess.Popen([*command, f"--web.listen-address=127.0.0.1:{PORT}"], stdout=log, stderr=log)


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    process.wait(timeout=30)


async def _load(url: str, sandbox: Any, *, until: float) -> None:
    """Conversations of registered and of unknown tools: calls, answers, repeats, corrections, judgements, executed calls."""
    rng = random.Random(7)
    tools = json.loads((REPOSITORY / "deploy" / "toolsets" / "filesystem" / "tools.json").read_text())
    strange = [{"type": "function", "function": {"name": "get_weather", "parameters": {"type": "object", "properties": {}}}}]
    async with httpx.AsyncClient(base_url=url, timeout=60) as client:
        while time.monotonic() < until:
            wish = rng.choice([*FILES, "", ""])
            messages: list[JsonObject] = [{"role": "user", "content": f"call {wish}" if wish else "hello"}]
            body = {"model": "base", "messages": messages, "tools": tools if rng.random() < 0.8 else strange, "user": "load"}
            reply = (await client.post("/v1/chat/completions", json=body)).json()
            message = reply["choices"][0]["message"]
            await client.post("/v1/feedback", json={"response_id": reply["id"], "correct": rng.random() < 0.9})
            if calls := message.get("tool_calls"):
                told = {"role": "tool", "tool_call_id": calls[0]["id"], "content": "done"}
                again = {"role": "user", "content": f"no, another one: call {wish}"}
                changed = json.loads(json.dumps(message))
                changed["tool_calls"][0]["function"]["arguments"] = '{"path": "/workspace/other"}'
                history = [*messages, changed, told, *([again] if rng.random() < 0.3 else [])]
                await client.post("/v1/chat/completions", json={**body, "messages": history})
                await _execute(sandbox, rng)
            await asyncio.sleep(rng.uniform(0.05, 0.4))


async def _execute(sandbox: Any, rng: random.Random) -> None:
    path = "/workspace" if rng.random() < 0.8 else "/workspace/none"
    spec = ToolCallSpec(toolset="filesystem", tool="list_directory", arguments=json.dumps({"path": path}), session_id="load")
    await sandbox.call_tool(spec, timeout_s=60)


def main() -> None:
    """Runs it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--minutes", type=float, default=3.0)
    asyncio.run(run(parser.parse_args().minutes))


if __name__ == "__main__":
    main()
