"""The client against the real application: what crosses the wire comes out as it went in."""

from __future__ import annotations

import httpx
import pytest

from services.callcache.app import create_app
from services.callcache.settings import CallCacheSettings
from services.shared.clients.callcache import CallCacheClient
from services.shared.contracts.calls import CallMemory, Ladder
from services.shared.contracts.errors import Unavailable, UpstreamError
from tests.callcache.calls import DictStore, look_back, made, repeated

pytestmark = pytest.mark.anyio


def joined(**settings) -> tuple[CallCacheClient, DictStore]:
    """A client whose requests reach an application over a store in a dictionary."""
    store = DictStore()
    app = create_app(CallCacheSettings(**settings), store=store)
    return CallCacheClient("http://callcache", timeout_s=5, transport=httpx.ASGITransport(app=app)), store


async def test_standings_cross_the_wire():
    client, _ = joined()
    memory: CallMemory = client
    await memory.look_back(look_back(repeated(4)))
    found = await memory.look_back(look_back([made("call_4")]))
    assert found.shared
    assert [(standing.tool, standing.repeats, standing.step) for standing in found.standings] == [("read_file", 5, "withdraw")]
    assert found.standings[0].call_key == made("any").call_key
    await client.aclose()


async def test_the_ladder_is_a_setting():
    client, _ = joined(ladder=Ladder(warn=1, withdraw=0, block=2))
    assert (await client.look_back(look_back(repeated(1)))).standings[0].step == "warn"
    assert (await client.look_back(look_back(repeated(2)))).standings[0].step == "block"


async def test_the_ladder_is_read_from_the_environment(monkeypatch):
    monkeypatch.setenv("AGENTFLUX_CALLCACHE_LADDER__WARN", "7")
    assert CallCacheSettings().ladder == Ladder(warn=7, withdraw=5, block=10)


@pytest.mark.parametrize("conversation", ["plain", "with/slash", "ä b?c#d%2F", "..", ".", "a/../b", "日本語", "x" * 256])
async def test_any_conversation_can_be_cleared(conversation):
    client, store = joined()
    await client.look_back(look_back(repeated(4), conversation=conversation))
    assert list(store.seen) == [conversation]
    await client.clear(conversation)
    assert store.seen == {}


async def test_a_store_that_is_down_degrades_and_does_not_fail():
    client, store = joined()
    store.down = True
    found = await client.look_back(look_back(repeated(3)))
    assert (found.shared, len(found.standings)) == (False, 1)
    with pytest.raises(Unavailable, match="the store is down"):
        await client.clear("conversation")
    assert await client.ready() is None


async def test_ready_says_why_the_service_is_away():
    client = CallCacheClient("http://127.0.0.1:1", timeout_s=1)
    assert "callcache at http://127.0.0.1:1 cannot be reached" in (await client.ready() or "")
    await client.aclose()


async def test_a_stranger_behind_the_address_is_an_upstream_error():
    stranger = httpx.MockTransport(lambda _: httpx.Response(200, json={"standings": "many"}))
    client = CallCacheClient("http://callcache", timeout_s=1, transport=stranger)
    with pytest.raises(UpstreamError, match="no Standings"):
        await client.look_back(look_back(repeated(1)))


async def test_health_and_metrics_of_the_application():
    store = DictStore()
    transport = httpx.ASGITransport(app=create_app(CallCacheSettings(), store=store))
    async with httpx.AsyncClient(transport=transport, base_url="http://callcache") as http:
        assert (await http.get("/readyz")).json() == {"status": "ready", "checks": {"redis": "ok"}}
        store.down = True
        degraded = await http.get("/readyz")
        assert (degraded.status_code, degraded.json()["status"]) == (200, "degraded")
        assert "the store is down" in degraded.json()["checks"]["redis"]
        page = (await http.get("/metrics")).text
        assert "agentflux_callcache_store_up 0.0" in page
        assert "agentflux_callcache_store_errors_total 1.0" in page

        refused = await http.post("/v1/look-back", json={"conversation": "", "calls": []})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "conversation")


async def test_the_store_is_closed_with_the_service():
    store = DictStore()
    app = create_app(CallCacheSettings(), store=store)
    async with app.router.lifespan_context(app):
        assert not store.closed
    assert store.closed
