"""Each dependency down at start and at run time: readiness names it, what needs it not goes on, it is found again."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import httpx
import pytest

from services.arguments import app as arguments
from services.callcache import app as callcache
from services.gateway import app as gateway
from services.sandbox import app as sandbox
from services.selector import app as selector
from tests.deploy.running import Service, engine, eventually, model_folder, started
from tests.valkey import Valkey, start_valkey

pytestmark = pytest.mark.real

WEATHER = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}
# What the gateway cannot do without, and what a turn with tools is without the others.
REQUIRED = {"engine", "selector", "arguments"}
# Under which name the gateway's readiness speaks of each.
CHECKS = {name: name for name in ("engine", "selector", "arguments", "callcache", "sandbox")} | {"valkey": "responses"}


@dataclass
class Deployment:
    """The gateway, and all behind it, by name; only the gateway was started."""

    gateway: Service
    behind: dict[str, Service | Valkey]

    def unwell(self) -> dict[str, str]:
        """What the gateway's readiness finds wrong, by dependency."""
        told = self.gateway.checks()["checks"]
        return {name: told[check] for name, check in CHECKS.items() if told.get(check) != "ok"}

    def turn(self, said: str, **body: Any) -> httpx.Response:
        """A turn with tools if there are some in `body`, else a plain answer."""
        asked = {"model": "base", "messages": [{"role": "user", "content": said}], **body}
        return httpx.post(f"{self.gateway.url}/v1/chat/completions", json=asked, timeout=30, trust_env=False)

    def calls_a_tool(self) -> bool:
        reply = self.turn("call get_weather", tools=[WEATHER])
        return reply.status_code == 200 and reply.json()["choices"][0]["finish_reason"] == "tool_calls"


@pytest.fixture(scope="module")
def deployment(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    folder, model = tmp_path_factory.mktemp("deployment"), str(model_folder())
    (folder / "toolsets").mkdir()

    def service(kind: ModuleType, **settings: str) -> Service:
        prefix = f"AGENTFLUX_{kind.__name__.split('.')[1].upper()}_"
        return Service(kind.main, folder, {f"{prefix}{each}": value for each, value in {"PORT": "{port}", **settings}.items()})

    with start_valkey() as valkey:
        valkey.stop()
        talking = engine(folder)
        staged = {"ENGINE_URL": talking.url, "MODEL_DIR": model}
        behind: dict[str, Service | Valkey] = {
            "engine": talking,
            "selector": service(selector, **staged),
            "arguments": service(arguments, **staged),
            "callcache": service(callcache, REDIS_URL=valkey.url),
            "sandbox": service(sandbox, TOOLSETS_DIR=str(folder / "toolsets"), WORKSPACE_DIR=str(folder / "files")),
            "valkey": valkey,
        }
        urls = {f"{name.upper()}_URL": each.url for name, each in behind.items() if name != "sandbox"}
        redis = {"REDIS_URL": urls.pop("VALKEY_URL"), "SANDBOX_TARGET": f"127.0.0.1:{behind['sandbox'].port}"}
        door = service(gateway, TOOLSETS_DIR=str(folder / "toolsets"), **urls, **redis)
        try:
            with started(door):
                yield Deployment(door, behind)
        finally:
            for each in behind.values():
                kill(each)


def kill(part: Service | Valkey) -> None:
    part.stop() if isinstance(part, Valkey) else part.kill()


def test_the_gateway_starts_before_all_it_needs_names_what_is_missing_and_finds_each_again(deployment: Deployment) -> None:
    behind = deployment.behind
    eventually(lambda: deployment.gateway.checks()["code"], within_s=60, unless=deployment.gateway.said)
    assert deployment.gateway.checks()["code"] == 503
    for name, says in deployment.unwell().items():
        assert str(behind[name].port) in says, f"{name} is to be named with its address: {says}"
    assert deployment.unwell().keys() == behind.keys()

    for each in behind.values():
        each.start()
    eventually(lambda: not deployment.unwell(), within_s=90, unless=lambda: str(deployment.unwell()))
    assert deployment.gateway.checks() | {"checks": {}, "details": {}} == {
        "code": 200,
        "status": "ready",
        "checks": {},
        "details": {},
    }
    eventually(deployment.calls_a_tool)

    for name in behind:
        _dies_and_comes_back(deployment, name)


def _dies_and_comes_back(deployment: Deployment, name: str) -> None:
    part = deployment.behind[name]
    kill(part)
    eventually(lambda: deployment.unwell().keys() == {name}, unless=lambda: f"{name} is dead: {deployment.unwell()}")
    assert str(part.port) in deployment.unwell()[name]
    ready = deployment.gateway.checks()
    assert (ready["code"], ready["status"]) == ((503, "unready") if name in REQUIRED else (200, "degraded"))
    refused = deployment.turn("call get_weather", tools=[WEATHER])
    if name in REQUIRED:
        assert refused.status_code == 503
        assert name in refused.json()["error"]["message"]
        assert float(refused.headers["retry-after"]) > 0
    else:
        assert refused.status_code == 200
    if name != "engine":
        assert deployment.turn("hi").status_code == 200, "a plain answer needs none of the others"
    part.start()
    eventually(lambda: not deployment.unwell(), within_s=60, unless=lambda: f"{name} lives: {deployment.unwell()}")
    eventually(deployment.calls_a_tool)
