"""Machines whose clocks differ by hours: what is shared is counted by one clock, and what shows a wrong time is known."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine
import yaml
from redis import Redis

from deploy.local.plan import REPOSITORY
from services.gateway.app import main
from services.gateway.keys import key_digest
from services.gateway.records.store import RedisCounters
from services.shared.clients.adapters import AdapterStore
from tests.adapters import publish_random, tiny_base
from tests.deploy.running import Service, engine, eventually, model_folder, started
from tests.valkey import Valkey, start_valkey

pytestmark = pytest.mark.real

HOURS = 3 * 3600.0
KEY, SHORT_KEY = "af-" + "k" * 40, "af-" + "s" * 40


class Pair:
    """Two gateways on one Valkey and one engine; the clock of the second is three hours ahead."""

    def __init__(self, folder: Path, valkey: Valkey) -> None:
        self.engine = engine(folder)
        self.valkey = valkey
        soon = datetime.now(UTC) + timedelta(hours=1)
        keys: list[dict[str, Any]] = [
            {"name": "app", "sha256": key_digest(KEY), "requests_per_minute": 6},
            {"name": "short", "sha256": key_digest(SHORT_KEY), "expires": soon.isoformat()},
        ]
        (folder / "keys.yaml").write_text(yaml.safe_dump(keys))
        settings = {
            "PORT": "{port}",
            "ENGINE_URL": self.engine.url,
            "BASE_MODEL": "base",
            "TOOLSETS_DIR": str(REPOSITORY / "deploy" / "toolsets"),
            "REDIS_URL": valkey.url,
            "LIMITS_TIMEOUT_S": "1",
            "KEYS_FILE": str(folder / "keys.yaml"),
        }
        named = {f"AGENTFLUX_GATEWAY_{name}": value for name, value in settings.items()}
        self.right = Service(main, folder, named)
        self.ahead = Service(main, folder, named, ahead_s=HOURS)


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    model_folder()
    with start_valkey() as valkey:
        pair = Pair(tmp_path_factory.mktemp("pair"), valkey)
        with started(pair.engine, pair.right, pair.ahead):
            eventually(lambda: serves(pair.right) and serves(pair.ahead), within_s=60, unless=pair.ahead.said)
            yield pair


def serves(gateway: Service) -> bool:
    return gateway.checks()["checks"].get("engine") == "ok"


def ask(gateway: Service, path: str = "chat/completions", *, key: str = KEY, **body: Any) -> httpx.Response:
    said = {"input": "hi"} if path == "responses" else {"messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": f"Bearer {key}"}
    return httpx.post(
        f"{gateway.url}/v1/{path}", json={"model": "base", **said, **body}, headers=headers, timeout=30, trust_env=False
    )


def test_gateways_whose_clocks_differ_by_hours_serve_and_share_limits_and_stored_responses(pair: Pair) -> None:
    assert datetime.fromtimestamp(ask(pair.ahead, key=KEY).json()["created"], UTC) > datetime.now(UTC) + timedelta(hours=2)
    first = ask(pair.ahead, "responses", store=True).json()
    second = ask(pair.right, "responses", previous_response_id=first["id"])
    assert second.status_code == 200, second.text

    replies = [ask((pair.right, pair.ahead)[number % 2]) for number in range(8)]
    refused = [reply for reply in replies if reply.status_code == 429]
    # Six a minute, of which the three above were the first (a minute that begins meanwhile gives one more); counted apart,
    # all of them would pass.
    assert len(refused) >= 4
    assert all(0 < int(reply.headers["retry-after"]) <= 120 for reply in refused)

    redis = Redis.from_url(pair.valkey.url)
    lifetimes = {key: redis.ttl(key) for key in redis.scan_iter("*")}
    redis.close()
    assert lifetimes
    assert all(0 < seconds <= 31 * 86_400 for seconds in lifetimes.values())


def test_a_key_expires_by_the_clock_of_the_gateway_that_is_asked(pair: Pair) -> None:
    assert ask(pair.right, key=SHORT_KEY).status_code == 200
    refused = ask(pair.ahead, key=SHORT_KEY)
    assert refused.status_code == 401
    assert "'short' expired at" in refused.json()["error"]["message"]


def test_with_one_clock_two_gateways_see_the_same_second() -> None:
    async def both(valkey: Valkey) -> tuple[float, float]:
        one, other = (RedisCounters(valkey.url, timeout_s=5) for _ in range(2))
        try:
            right = await one.now()
            with time_machine.travel(time.time() + HOURS, tick=True):
                return right, await other.now()
        finally:
            await one.aclose()
            await other.aclose()

    with start_valkey() as valkey:
        right, ahead = asyncio.run(both(valkey))
    assert abs(ahead - right) < 5


def test_what_was_just_published_is_not_old_to_a_machine_whose_clock_is_a_month_ahead(tmp_path: Path) -> None:
    store = AdapterStore(tmp_path / "store")
    store.root.mkdir()
    name = publish_random(store, tiny_base(tmp_path / "base"), tmp_path / "files")
    with time_machine.travel(time.time() + 30 * 86_400, tick=True):
        assert store.prune(keep_s=86_400) == []
        assert store.prune(keep_s=0) == [name]
