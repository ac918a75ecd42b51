"""Keys, limits and admission as clients meet them: a whole gateway over HTTP, with the official SDKs where there is one."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from services.gateway.keys import key_digest
from services.shared.chassis.logging import configure_logging
from tests.gateway.backends import HELLO, TOOLS, Backends, metric, put, whole_gateway, write_toolsets

pytestmark = pytest.mark.anyio
KEY, OTHER = "af-" + "k" * 43, "af-" + "o" * 43


def keys_file(folder: Path, *entries: dict[str, Any]) -> Path:
    file = folder / "keys.json"
    put(file, json.dumps([{"name": "team-a", "sha256": key_digest(KEY), **entries[0]}, *entries[1:]]))
    return file


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}"}


async def chat(client: httpx.AsyncClient, key: str | None = KEY, **fields: Any) -> httpx.Response:
    return await client.post("/v1/chat/completions", json={**HELLO, **fields}, headers=bearer(key) if key else {})


# --- Keys ---


async def test_checklist_10_without_keys_any_key_and_none_is_fine_and_readiness_says_that_all_is_open():
    async with whole_gateway() as client:
        for headers in ({}, {"authorization": "Bearer"}, bearer("not-needed"), {"x-api-key": "x"}):
            assert (await client.get("/v1/models", headers=headers)).status_code == 200
        assert "x-ratelimit-limit-requests" not in (await chat(client)).headers
        assert (await client.get("/readyz")).json()["details"]["callers"].startswith("open: everybody")


async def test_checklist_9_a_missing_or_wrong_key_is_401_in_openais_words(tmp_path):
    async with whole_gateway(keys_file=keys_file(tmp_path, {})) as client:
        wrong = [{}, {"authorization": "Bearer"}, bearer("hunter2"), {"x-api-key": "hunter2"}, {"authorization": f"Basic {KEY}"}]
        for headers in wrong:
            for reply in (
                await client.post("/v1/chat/completions", json=HELLO, headers=headers),
                await client.get("/v1/models", headers=headers),
                await client.get("//models/", headers=headers),
                await client.get("/docs", headers=headers),
            ):
                assert reply.status_code == 401
                error = reply.json()["error"]
                assert (error["code"], error["type"]) == ("invalid_api_key", "invalid_request_error")
                assert "hunter2" not in reply.text
                assert reply.headers["www-authenticate"] == "Bearer"
                assert reply.headers["x-request-id"]
                assert reply.headers["x-should-retry"] == "false"
        for headers in (bearer(KEY), {"x-api-key": KEY}, {"authorization": f"bearer  {KEY}"}):
            assert (await client.post("/v1/chat/completions", json=HELLO, headers=headers)).status_code == 200
        assert await metric(client, 'agentflux_refused_total{reason="invalid_api_key"}') == 4 * len(wrong)


async def test_what_the_platform_asks_needs_no_key(tmp_path):
    async with whole_gateway(keys_file=keys_file(tmp_path, {})) as client:
        for path in ("/livez", "/readyz", "/metrics"):
            assert (await client.get(path)).status_code == 200


async def test_the_openai_sdk_raises_its_authentication_error(tmp_path):
    async with whole_gateway(keys_file=keys_file(tmp_path, {})) as client:
        base_url = f"{client.base_url}/v1"
        async with openai.AsyncOpenAI(base_url=base_url, api_key=KEY) as good:
            assert (await good.chat.completions.create(**HELLO)).choices[0].message.content == "It is done."
        async with openai.AsyncOpenAI(base_url=base_url, api_key=OTHER) as bad:
            with pytest.raises(openai.AuthenticationError) as raised:
                await bad.chat.completions.create(**HELLO)
            assert raised.value.code == "invalid_api_key"


async def test_a_wrong_key_is_answered_before_the_body_is_read(tmp_path):
    async with whole_gateway(keys_file=keys_file(tmp_path, {})) as client:
        assert client.base_url.port is not None
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        head = "POST /v1/chat/completions HTTP/1.1\r\nhost: x\r\nauthorization: Bearer hunter2\r\ncontent-length: 8000000\r\n\r\n"
        writer.write(head.encode())
        status = await asyncio.wait_for(reader.readline(), 5)
        assert b"401" in status
        writer.close()


async def test_a_key_opens_only_its_toolsets(tmp_path):
    toolsets = write_toolsets(tmp_path / "toolsets", "files", "mail")
    keys = keys_file(tmp_path, {"toolsets": ["files"], "base_model": False})
    stranger = [{"type": "function", "function": {"name": "unheard_of", "parameters": {"type": "object", "properties": {}}}}]
    async with whole_gateway(keys_file=keys, toolsets_dir=toolsets) as client:
        for allowed in ({"tools": TOOLS["files"]}, {"model": "files"}):
            reply = await chat(client, **{"model": "files", **allowed})
            assert reply.status_code == 200, reply.text
        refused = [
            {},
            {"tools": TOOLS["mail"]},
            {"model": "mail"},
            {"model": "files", "tools": TOOLS["mail"]},
            {"tools": stranger},
        ]
        for fields in [*refused, {**refused[0], "stream": True}]:
            reply = await chat(client, **fields)
            assert reply.status_code == 403, (fields, reply.text)
            assert reply.json()["error"]["code"] == "forbidden"
            assert "its toolsets: files" in reply.json()["error"]["message"]
        reply = await client.post("/v1/completions", json={"model": "base", "prompt": "x"}, headers=bearer(KEY))
        assert reply.status_code == 403


async def test_callers_without_a_key_have_limits_of_their_own(tmp_path):
    async with whole_gateway(keys_file=keys_file(tmp_path, {}, {"name": "anonymous", "requests_per_minute": 1})) as client:
        assert [(await chat(client, key)).status_code for key in (None, None, KEY, KEY, OTHER)] == [200, 429, 200, 200, 401]


async def test_keys_are_read_anew_and_a_bad_file_leaves_the_old_ones_in_force(tmp_path):
    file = keys_file(tmp_path, {})
    async with whole_gateway(keys_file=file, reload_s=0.02) as client:

        async def becomes(key: str, status: int) -> None:
            async def it_is() -> bool:
                return (await chat(client, key)).status_code == status

            await until(it_is)

        async def is_degraded() -> bool:
            return bool((await client.get("/readyz")).json()["status"] == "degraded")

        assert (await chat(client, OTHER)).status_code == 401
        keys_file(tmp_path, {}, {"name": "team-b", "sha256": key_digest(OTHER)})
        await becomes(OTHER, 200)
        put(file, '[{"name": "team-a", "key": "hunter2"}]')
        await until(is_degraded)
        reason = (await client.get("/readyz")).json()["checks"]["keys"]
        assert "the old ones are" in reason
        assert "hunter2" not in reason
        assert (await chat(client, OTHER)).status_code == 200
        assert await metric(client, 'agentflux_reloads_total{outcome="refused",what="keys"}') == 1
        keys_file(tmp_path, {})
        await becomes(OTHER, 401)
        assert (await client.get("/readyz")).json()["checks"]["keys"] == "ok"


@pytest.fixture
def logs(caplog: pytest.LogCaptureFixture) -> Iterator[list[str]]:
    """All that a service writes, as text."""
    lines: list[str] = []

    class Keeper(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(self.format(record))

    before = logging.getLogger().handlers[:]
    configure_logging("gateway", "debug")
    keeper = Keeper()
    keeper.setFormatter(logging.getLogger().handlers[0].formatter)
    logging.getLogger().addHandler(keeper)
    yield lines
    logging.getLogger().handlers = before


async def test_no_key_is_in_a_log_an_error_or_a_metric(tmp_path, logs):
    async with whole_gateway(keys_file=keys_file(tmp_path, {"requests_per_minute": 2})) as client:
        replies = [await chat(client, key) for key in (KEY, KEY, KEY, OTHER)]
        assert [reply.status_code for reply in replies] == [200, 200, 429, 401]
        page = (await client.get("/metrics")).text
    seen = "\n".join([*logs, page, *(reply.text + str(reply.headers) for reply in replies)])
    assert "rate_limit_exceeded" in seen
    for secret in (KEY, OTHER, key_digest(KEY), key_digest(OTHER)):
        assert secret not in seen
    assert 'caller="team-a"' in page
    assert any('"caller": "team-a"' in line for line in logs), logs


# --- Limits ---


async def test_checklist_52_and_47_limits_show_in_headers_and_end_in_429_that_sdks_retry(tmp_path):
    async with whole_gateway(keys_file=keys_file(tmp_path, {"requests_per_minute": 2, "tokens_per_minute": 100_000})) as client:
        replies = [await chat(client, stream=stream) for stream in (True, False, False)]
        assert [reply.status_code for reply in replies] == [200, 200, 429]
        assert [reply.headers["x-ratelimit-remaining-requests"] for reply in replies[:2]] == ["1", "0"]
        for reply in replies[:2]:
            assert reply.headers["x-ratelimit-limit-requests"] == "2"
            assert reply.headers["x-ratelimit-limit-tokens"] == "100000"
            assert int(reply.headers["x-ratelimit-remaining-tokens"]) < 100_000
            assert reply.headers["x-ratelimit-reset-requests"].endswith("s")
            assert reply.headers["x-ratelimit-reset-tokens"].endswith("s")
        refused = replies[2]
        assert refused.json()["error"]["code"] == "rate_limit_exceeded"
        assert 0 < int(refused.headers["retry-after"]) <= 120
        assert 0 < int(refused.headers["retry-after-ms"]) <= 120_000
        assert refused.headers["x-should-retry"] == "true"
        assert (await client.get("/v1/models", headers=bearer(KEY))).status_code == 200
        assert await metric(client, 'agentflux_caller_requests_total{caller="team-a",outcome="rate_limit_exceeded"}') == 1


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(("tools", "used"), [([], 50), (TOOLS["files"], 220)])
async def test_a_turn_costs_what_its_stages_used(stream, tools, used, tmp_path):
    async with whole_gateway(keys_file=keys_file(tmp_path, {"tokens_per_day": used})) as client:
        reply = await chat(client, stream=stream, **({"tools": tools} if tools else {}))
        assert reply.status_code == 200, reply.text
        refused = await chat(client)
        assert refused.status_code == 429
        assert refused.json()["error"]["code"] == "insufficient_quota"
        assert f"used {used} of its {used} tokens today" in refused.json()["error"]["message"]
        assert refused.headers["x-should-retry"] == "false"
        assert "retry-after" not in refused.headers
        assert await metric(client, 'agentflux_caller_tokens_total{caller="team-a"}') == used


async def test_redis_that_is_away_keeps_nobody_out(tmp_path):
    keys = keys_file(tmp_path, {"requests_per_minute": 1})
    async with whole_gateway(keys_file=keys, redis_url="redis://127.0.0.1:1/0") as client:
        assert [(await chat(client)).status_code for _ in range(3)] == [200, 200, 200]
        assert await metric(client, "agentflux_limits_unavailable_total") >= 3


# --- Admission ---


async def test_checklist_47_a_full_gateway_answers_503_with_a_time_to_come_back():
    backends = Backends()
    backends.delay_s = 0.5
    async with whole_gateway(backends, max_turns=2, max_queue=2) as client:
        replies = await asyncio.gather(*(chat(client) for _ in range(8)))
        assert sorted(reply.status_code for reply in replies) == [200] * 4 + [503] * 4
        for reply in replies:
            if reply.status_code == 503:
                assert reply.json()["error"]["code"] == "overloaded"
                assert 0 < int(reply.headers["retry-after"]) <= 120
                assert reply.headers["x-should-retry"] == "true"
        assert await metric(client, 'agentflux_refused_total{reason="full"}') == 4
        assert await metric(client, "agentflux_turns_running") == 0
        assert await metric(client, "agentflux_admission_wait_seconds_count") == 4


async def test_a_tool_loop_goes_on_while_new_conversations_wait():
    backends = Backends()
    backends.delay_s = 1
    call = {"id": "call_1", "type": "function", "function": {"name": "files_read", "arguments": "{}"}}
    history = [
        *HELLO["messages"],
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "call_1", "content": "text"},
    ]
    done: list[str] = []
    async with whole_gateway(backends, max_turns=1) as client:

        async def ask(name: str, **fields: Any) -> None:
            assert (await chat(client, tools=TOOLS["files"], **fields)).status_code == 200
            done.append(name)

        async with asyncio.TaskGroup() as group:
            group.create_task(ask("runs"))
            await shows(client, "agentflux_turns_running", 1)
            for number in range(2):
                group.create_task(ask(f"new{number}"))
            await shows(client, "agentflux_turns_waiting", 2)
            group.create_task(ask("loop", messages=history))
    assert done[:2] == ["runs", "loop"]


async def test_a_client_that_leaves_the_queue_is_gone_at_once():
    backends = Backends()
    backends.delay_s = 30
    async with whole_gateway(backends, max_turns=1) as client:
        first, second = (asyncio.create_task(chat(client)) for _ in range(2))
        await shows(client, "agentflux_turns_waiting", 1)
        second.cancel()
        await shows(client, "agentflux_turns_waiting", 0)
        assert await metric(client, "agentflux_turns_running") == 1
        first.cancel()
        await shows(client, "agentflux_turns_running", 0)


async def test_requests_beyond_the_bound_are_refused_before_they_are_read():
    backends = Backends()
    backends.delay_s = 30
    async with whole_gateway(backends, max_requests=1) as client:
        first = asyncio.create_task(chat(client))
        await shows(client, "agentflux_turns_running", 1)
        reply = await chat(client)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "overloaded")
        assert "max_requests" in reply.json()["error"]["message"]
        assert (await client.get("/readyz")).status_code == 200
        first.cancel()
        await asyncio.wait({first})
        await shows(client, "agentflux_turns_running", 0)
        backends.delay_s = 0
        assert (await chat(client)).status_code == 200


# --- Dependencies that fail ---


async def test_checklist_48_a_selector_that_keeps_failing_is_left_alone_for_a_while_and_then_asked_again():
    backends = Backends()
    backends.fails = {"v1/select"}
    async with whole_gateway(backends, breaker_failures=3, breaker_wait_s=0.2) as client:
        replies = [await chat(client, tools=TOOLS["files"]) for _ in range(10)]
        assert all(reply.status_code >= 500 for reply in replies)
        assert 3 <= backends.asked["v1/select"] < 10
        assert replies[3].status_code == 503
        assert replies[3].headers["retry-after"] == "1"
        assert await metric(client, 'agentflux_breaker_state{dependency="selector"}') > 0
        assert await metric(client, 'agentflux_breaker_state{dependency="arguments"}') == 0
        backends.fails = set()
        await asyncio.sleep(0.25)
        assert (await chat(client, tools=TOOLS["files"])).status_code == 200
        assert await metric(client, 'agentflux_breaker_state{dependency="selector"}') == 0


async def until(condition: Callable[[], Awaitable[bool]]) -> None:
    for _ in range(1000):
        if await condition():
            return
        await asyncio.sleep(0.01)
    raise AssertionError("it did not happen")


async def shows(client: httpx.AsyncClient, name: str, value: float) -> None:
    async def it_does() -> bool:
        return await metric(client, name) == value

    await until(it_does)


# --- What belongs to one key ---


async def test_stored_responses_of_one_key_are_not_there_for_another(tmp_path):
    two = keys_file(tmp_path, {}, {"name": "team-b", "sha256": key_digest(OTHER)})
    async with whole_gateway(keys_file=two) as client:
        made = await client.post("/v1/responses", json={"model": "base", "input": "secret"}, headers=bearer(KEY))
        path, item = f"/v1/responses/{made.json()['id']}", made.json()["output"][0]["id"]
        asked = {"model": "base", "input": "What did I say?"}
        reached = [
            await client.get(path, headers=bearer(OTHER)),
            await client.get(f"{path}/input_items", headers=bearer(OTHER)),
            await client.post(f"{path}/cancel", headers=bearer(OTHER)),
            await client.delete(path, headers=bearer(OTHER)),
            await client.post("/v1/responses", json={**asked, "previous_response_id": made.json()["id"]}, headers=bearer(OTHER)),
            await client.post(
                "/v1/responses", json={**asked, "input": [{"type": "item_reference", "id": item}]}, headers=bearer(OTHER)
            ),
        ]
        assert [reply.status_code for reply in reached] == [404] * 6
        assert not any("secret" in reply.text for reply in reached)
        never_made = await client.get(path[:-4] + "0000", headers=bearer(OTHER))
        own_words = {reply.json()["error"]["code"] for reply in (reached[0], never_made)}
        assert own_words == {"not_found"}, "whether another key has it is not told"
        assert (await client.get(path, headers=bearer(KEY))).status_code == 200, "it was not deleted"
        done = await client.post(f"{path}/cancel", headers=bearer(KEY))
        assert (done.status_code, done.json()["error"]["param"]) == (400, "response_id")


async def test_only_the_key_that_got_a_reply_may_judge_it(tmp_path):
    two = keys_file(tmp_path, {}, {"name": "team-b", "sha256": key_digest(OTHER)})
    async with whole_gateway(keys_file=two) as client:
        said = {"response_id": (await chat(client)).json()["id"], "correct": False}
        assert (await client.post("/v1/feedback", json=said, headers=bearer(OTHER))).status_code == 404
        judged = await client.post("/v1/feedback", json=said, headers=bearer(KEY))
        assert (judged.status_code, judged.json()["counted"]) == (200, True)
