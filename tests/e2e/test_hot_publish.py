"""Adapters are published while requests run: nothing fails, and no reply mixes two releases."""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest

from deploy.local import base_model
from deploy.local.plan import REPOSITORY, LocalSettings
from services.arguments.app import create_app as arguments_app
from services.arguments.settings import ArgumentsSettings
from services.gateway.app import create_app as gateway_app
from services.gateway.settings import GatewaySettings
from services.selector.app import create_app as selector_app
from services.selector.settings import SelectorSettings
from services.shared.clients.adapters import AdapterStore
from services.shared.contracts.adapters import AdapterSet, PromptProfile
from services.shared.contracts.errors import AdapterRefused
from services.shared.contracts.prompts import PromptRenderer
from services.shared.contracts.tools import Tool, tools_digest
from tests.adapters import publish_random, tiny_base
from tests.deployment import Deployment
from tests.shared.serving import served
from tests.wire_engine import WireEngine

pytestmark = pytest.mark.anyio

TOOLS_FILE = REPOSITORY / "deploy" / "toolsets" / "filesystem" / "tools.json"
TOOLS: list[Any] = json.loads(TOOLS_FILE.read_text())
DIGEST = tools_digest([Tool.model_validate(entry["function"]) for entry in TOOLS])
NAMES = [entry["function"]["name"] for entry in TOOLS]


@dataclass
class Publisher:
    """Publishes releases of random adapters, and remembers what each one consists of."""

    store: AdapterStore
    base: Path
    scratch: Path
    written_for: list[str]
    profile: PromptProfile = "full"
    rank: int = 8
    seeds: Any = field(default_factory=lambda: itertools.count(1))
    releases: dict[int | None, set[str]] = field(default_factory=lambda: {None: set()})

    def publish(self) -> int:
        seed = next(self.seeds)
        template = PromptRenderer.load(self.base).template_hash
        fields = {"template_hash": template, "tools_digest": DIGEST, "prompt_profile": self.profile, "rank": self.rank}

        def one(name: str, **what: Any) -> str:
            return publish_random(self.store, self.base, self.scratch / f"{seed}-{name}", seed=seed, **{**fields, **what})

        selector = one("select", role="selector")
        arguments = {tool: one(tool, role="arguments", tool=tool) for tool in self.written_for}
        return self.promoted(AdapterSet(selector=selector, arguments=arguments))

    def promoted(self, adapters: AdapterSet) -> int:
        number = self.store.promote("filesystem", adapters).number
        self.releases[number] = set(adapters.names)
        return number

    def roll_back(self) -> int:
        release = self.store.roll_back("filesystem")
        self.releases[release.number] = set(release.adapters.names)
        return release.number


@dataclass
class Traffic:
    """Clients that ask without pause; `seen` counts replies by release."""

    url: str
    publisher: Publisher
    model: str
    seen: dict[int | None, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)

    async def client(self, name: int) -> None:
        async with httpx.AsyncClient(base_url=self.url, timeout=120, trust_env=False) as http:
            for turn in itertools.count():
                question = [{"role": "user", "content": f"Please look at number {name}.{turn}"}]
                body = {"model": self.model, "messages": question, "tools": TOOLS, "tool_choice": "required", "max_tokens": 16}
                self.judge(await http.post("/v1/chat/completions", json=body))

    def judge(self, reply: httpx.Response) -> None:
        if reply.status_code != 200:
            self.failures.append(f"{reply.status_code}: {reply.text[:300]}")
            return
        selected = json.loads(reply.headers["x-agentflux-selection"])
        wrote = json.loads(reply.headers["x-agentflux-arguments"])
        release = selected["release"]
        self.seen[release] = self.seen.get(release, 0) + 1
        adapters = {selected["adapter"], wrote["adapter"]} - {self.model}
        if wrote["release"] != release or not adapters <= self.publisher.releases.get(release, set()):
            self.failures.append(f"mixed: {selected} {wrote}")

    @asynccontextmanager
    async def running(self, clients: int) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(self.client(number)) for number in range(clients)]
        try:
            yield
            assert not [task.exception() for task in tasks if task.done()]
        finally:
            for task in tasks:
                task.cancel()
            for task in tasks:
                with suppress(asyncio.CancelledError):
                    await task

    async def until_seen(self, release: int, within_s: float = 60) -> None:
        async with asyncio.timeout(within_s):
            while release not in self.seen:  # noqa: ASYNC110
                await asyncio.sleep(0.02)


@pytest.fixture
def base(tmp_path: Path) -> Path:
    """The real tokenizer and template on a model of a kilobyte, whose adapters are as small."""
    real = LocalSettings().model
    base_model.prepare(real, say=lambda _: None)
    folder = tiny_base(tmp_path / "base")
    for name in ("tokenizer.json", "tokenizer_config.json", "chat_template.jinja"):
        shutil.copy(real / name, folder)
    return folder


@pytest.fixture
def publisher(base: Path, tmp_path: Path) -> Publisher:
    (tmp_path / "store").mkdir()
    return Publisher(AdapterStore(tmp_path / "store"), base, tmp_path / "made", written_for=NAMES[:3])


@asynccontextmanager
async def services(base: Path, store: Path) -> AsyncIterator[tuple[str, WireEngine]]:
    """Gateway, selector and argument service as they are, in front of a stand-in for vLLM."""
    engine = WireEngine(store)
    async with served(engine.app) as engine_url, services_before(engine_url, base, store) as url:
        yield url, engine


@asynccontextmanager
async def services_before(engine_url: str, base: Path, store: Path) -> AsyncIterator[str]:
    """The gateway's URL; selector and argument service are behind it, and the engines at `engine_url` behind these."""
    async with AsyncExitStack() as stack:
        common: dict[str, Any] = {"engine_url": engine_url, "base_model": "base", "port": 0}
        staged: dict[str, Any] = {**common, "model_dir": base, "adapter_store": store}
        selector = await stack.enter_async_context(served(selector_app(SelectorSettings(**staged))))
        arguments = await stack.enter_async_context(served(arguments_app(ArgumentsSettings(**staged))))
        settings = GatewaySettings(
            **common,
            selector_url=selector,
            arguments_url=arguments,
            callcache_url="http://127.0.0.1:9",
            toolsets_dir=REPOSITORY / "deploy" / "toolsets",
        )
        yield await stack.enter_async_context(served(gateway_app(settings)))


async def in_thread(call: Callable[[], int]) -> int:
    return await asyncio.to_thread(call)


async def test_a_hundred_publishes_under_load_fail_nothing_and_mix_nothing(publisher: Publisher, base: Path) -> None:
    async with services(base, publisher.store.root) as (url, engine):
        traffic = Traffic(url, publisher, "base")
        async with traffic.running(clients=6):
            await in_thread(publisher.publish)
            for step in range(99):
                await in_thread(publisher.roll_back if step % 10 == 9 else publisher.publish)
            await traffic.until_seen(100)
    assert traffic.failures == []
    assert sum(traffic.seen.values()) > 100
    # The others served, too, and each was warmed before it did.
    assert len(traffic.seen) > 10
    assert all(engine.asked[name] for number in traffic.seen if number for name in publisher.releases[number])


@pytest.mark.parametrize("harm", ["tampered", "missing"])
async def test_what_cannot_serve_is_refused_and_the_release_before_serves_on(publisher: Publisher, base: Path, harm: str) -> None:
    store = publisher.store
    async with services(base, store.root) as (url, _):
        traffic = Traffic(url, publisher, "base")
        async with traffic.running(clients=2):
            await traffic.until_seen(await in_thread(publisher.publish))
            await in_thread(publisher.publish)
            await traffic.until_seen(2)
            forge_release(store, harm)
            await asyncio.sleep(1.5)
            assert set(traffic.seen) <= {None, 1, 2}
            with pytest.raises(AdapterRefused):
                store.promote("filesystem", store.manifests()["filesystem"].current.adapters)
            await traffic.until_seen(await in_thread(publisher.publish))
    assert traffic.failures == []
    assert 3 not in traffic.seen


def forge_release(store: AdapterStore, harm: str) -> None:
    """Release 3, as a faulty tool might write it: it names an adapter that was changed, or that is not there."""
    manifest = store.manifests()["filesystem"]
    name = str(manifest.current.adapters.selector)
    other = name[:-12] + "0" * 12
    if harm == "tampered":
        shutil.copytree(store.root / name, store.root / other)
        weights = store.root / other / "adapter_model.safetensors"
        weights.chmod(0o644)
        content = bytearray(weights.read_bytes())
        content[-3] ^= 0xFF
        weights.write_bytes(content)
    adapters = manifest.current.adapters.model_copy(update={"selector": other})
    forged = manifest.current.model_copy(update={"number": 3, "adapters": adapters})
    whole = manifest.model_copy(update={"releases": [forged, *manifest.releases]})
    (store.root / "next").write_text(whole.model_dump_json())
    (store.root / "next").rename(store.root / "filesystem.manifest.json")


@pytest.mark.real
async def test_a_real_engine_serves_each_release_whole(deployment: Deployment, tmp_path: Path) -> None:
    store = AdapterStore(deployment.settings.store)
    publisher = Publisher(store, deployment.settings.model, tmp_path / "made", written_for=NAMES)
    before = store.manifest("filesystem")
    assert before is None or before.current
    traffic = Traffic(deployment.base_url.removesuffix("/v1"), publisher, deployment.model)
    if before:
        publisher.releases[before.current.number] = set(before.current.adapters.names)
    try:
        async with traffic.running(clients=1):
            for _ in range(3):
                await traffic.until_seen(await in_thread(publisher.publish), within_s=180)
            await traffic.until_seen(await in_thread(publisher.roll_back), within_s=60)
        assert traffic.failures == []
    finally:
        store.promote("filesystem", before.current.adapters if before else AdapterSet(), note="as before the test")
