"""What every service's edge promises to whoever speaks HTTP to it, over a real server."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
from fastapi import BackgroundTasks, FastAPI
from fastapi.responses import StreamingResponse
from pydantic import BaseModel

from services.shared.chassis.http import install_edge
from services.shared.chassis.settings import ServiceSettings
from services.shared.contracts.errors import ArgumentsInvalid, EngineUnavailable, InvalidRequest
from tests.shared.serving import served

pytestmark = pytest.mark.anyio


class Order(BaseModel):
    """A body with one field."""

    name: str
    extras: dict[str, int] = {}


class Kitchen:
    """An application behind the edge, and what its handlers lived through."""

    def __init__(self, *, required: Any = None, optional: Any = None, **settings: Any) -> None:
        self.started = asyncio.Event()
        self.cancelled = asyncio.Event()
        self.finished = asyncio.Event()
        self.app = FastAPI()
        self.edge = install_edge(self.app, ServiceSettings(**settings), required=required, optional=optional)

        @self.app.post("/orders")
        async def order(order: Order) -> Order:
            return order

        @self.app.get("/orders/{number}")
        async def look_up(number: int) -> dict[str, int]:
            return {"number": number}

        @self.app.get("/fails/{how}")
        async def fail(how: str) -> None:
            raise {
                "invalid": InvalidRequest("tools.0 is no tool", param="tools.0"),
                "arguments": ArgumentsInvalid("path is missing"),
                "engine": EngineUnavailable("the engine is starting"),
                "surrogate": InvalidRequest("unknown tool '\ud800'"),
            }.get(how) or RuntimeError("the password is hunter2")

        @self.app.post("/slow")
        async def slow() -> None:
            await self._wait()

        @self.app.get("/stream")
        async def stream(then: str = "wait") -> StreamingResponse:
            async def chunks() -> AsyncIterator[str]:
                yield "first\n"
                if then == "fail":
                    raise RuntimeError("in the middle")
                await self._wait()

            return StreamingResponse(chunks())

        @self.app.get("/afterwards")
        async def afterwards(tasks: BackgroundTasks) -> str:
            tasks.add_task(self._finish_later)
            return "done"

    async def _wait(self) -> None:
        self.started.set()
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise

    async def _finish_later(self) -> None:
        await asyncio.sleep(0.3)
        self.finished.set()

    def metric(self, name: str, **labels: str) -> float | None:
        return self.edge.registry.get_sample_value(name, labels)

    @contextlib.asynccontextmanager
    async def open(self) -> AsyncIterator[httpx.AsyncClient]:
        async with served(self.app) as url, httpx.AsyncClient(base_url=url, timeout=10) as client:
            yield client


def error_of(reply: httpx.Response) -> dict[str, Any]:
    """The error object of a reply, which has nothing beside it."""
    assert reply.headers["content-type"] == "application/json"
    assert list(reply.json()) == ["error"], reply.text
    assert list(reply.json()["error"]) == ["message", "type", "code", "param"]
    assert "Traceback" not in reply.text
    return reply.json()["error"]


# --- Errors ---


async def test_an_unknown_route_is_an_error_object():
    async with Kitchen().open() as client:
        reply = await client.get("/v2/nothing")
        assert (reply.status_code, error_of(reply)["code"]) == (404, "not_found")
        assert "GET /v2/nothing" in error_of(reply)["message"]


async def test_a_wrong_method_says_which_one_is_right():
    async with Kitchen().open() as client:
        reply = await client.get("/orders")
        assert (reply.status_code, error_of(reply)["code"]) == (405, "method_not_allowed")
        assert reply.headers["allow"] == "POST"


@pytest.mark.parametrize(
    ("body", "param", "said"),
    [
        ({"name": 7}, "name", "string"),
        ({}, "name", "required"),
        ({"name": "soup", "extras": {"salt": "much"}}, "extras.salt", "integer"),
        ([], None, "dictionary"),
    ],
)
async def test_a_body_of_the_wrong_shape_names_its_field(body, param, said):
    async with Kitchen().open() as client:
        reply = await client.post("/orders", json=body)
        error = error_of(reply)
        assert (reply.status_code, error["code"], error["param"]) == (400, "invalid_request", param)
        assert said in error["message"]


async def test_a_path_of_the_wrong_shape_is_an_invalid_request():
    async with Kitchen().open() as client:
        reply = await client.get("/orders/seven")
        assert (reply.status_code, error_of(reply)["param"]) == (400, "path.number")


@pytest.mark.parametrize(
    "content",
    [b'{"name": ', b"", b"\xff\xfe", b"[" * 100_000, b'{"name": "a", "extras": {"\\ud800": "b"}}'],
)
async def test_a_body_that_is_no_sound_json_is_an_invalid_request(content):
    async with Kitchen().open() as client:
        reply = await client.post("/orders", content=content, headers={"content-type": "application/json"})
        assert (reply.status_code, error_of(reply)["code"]) == (400, "invalid_request")


async def test_errors_of_ours_keep_their_status_and_tell_sdks_whether_to_retry():
    async with Kitchen().open() as client:
        invalid = await client.get("/fails/invalid")
        assert (invalid.status_code, error_of(invalid)["param"]) == (400, "tools.0")
        assert (invalid.headers["x-should-retry"], invalid.headers.get("retry-after")) == ("false", None)

        assert (await client.get("/fails/arguments")).status_code == 422

        engine = await client.get("/fails/engine")
        assert (engine.status_code, error_of(engine)["code"]) == (503, "engine_unavailable")
        assert (engine.headers["x-should-retry"], engine.headers["retry-after"]) == ("true", "2")
        assert engine.headers["retry-after-ms"] == "2000"


async def test_a_message_that_quotes_half_a_character_still_arrives():
    async with Kitchen().open() as client:
        reply = await client.get("/fails/surrogate")
        assert (reply.status_code, error_of(reply)["message"]) == (400, "unknown tool '?'")


async def test_an_unexpected_exception_tells_the_request_id_and_nothing_else():
    async with Kitchen().open() as client:
        reply = await client.get("/fails/unexpectedly", headers={"x-request-id": "night-shift-7"})
        assert (reply.status_code, error_of(reply)["code"]) == (500, "internal_error")
        assert "night-shift-7" in error_of(reply)["message"]
        assert "hunter2" not in reply.text


async def test_a_stream_that_fails_halfway_ends_without_its_end():
    async with Kitchen().open() as client:
        with pytest.raises(httpx.RemoteProtocolError):
            await client.get("/stream", params={"then": "fail"})


# --- Bodies ---


async def test_a_body_over_the_limit_is_refused():
    kitchen = Kitchen(max_body_bytes=2000)

    async def unannounced() -> AsyncIterator[bytes]:
        for _ in range(30):
            yield b"x" * 100

    async with kitchen.open() as client:
        for body in (b"x" * 2001, unannounced()):
            reply = await client.post("/orders", content=body)
            assert (reply.status_code, error_of(reply)["code"]) == (413, "request_too_large")
            assert "max_body_bytes" in error_of(reply)["message"]
        exactly = b'{"name": "' + b"x" * 1988 + b'"}'
        assert (await client.post("/orders", content=exactly, headers={"content-type": "application/json"})).status_code == 200


async def test_a_body_that_does_not_arrive_in_time_ends_in_an_error_and_a_closed_connection():
    async with Kitchen(body_timeout_s=0.3).open() as client:
        reader, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(b'POST /orders HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\n{"name"')
        started = time.monotonic()
        reply = await asyncio.wait_for(reader.read(), 5)
        assert time.monotonic() - started < 3
        assert reply.startswith(b"HTTP/1.1 504")
        assert b'"code":"deadline_exceeded"' in reply
        assert b"did not arrive within 0.3 s" in reply
        writer.close()


async def test_a_client_that_leaves_before_its_body_is_complete_starts_nothing():
    kitchen = Kitchen()
    async with kitchen.open() as client:
        _, writer = await asyncio.open_connection(client.base_url.host, client.base_url.port)
        writer.write(b"POST /slow HTTP/1.1\r\nhost: x\r\ncontent-length: 100\r\n\r\nhalf")
        await writer.drain()
        await asyncio.sleep(0.1)
        writer.close()
        await eventually(lambda: kitchen.metric("agentflux_cancelled_requests_total", route="other") == 1)
        assert not kitchen.started.is_set()


# --- Clients that leave ---


async def eventually(condition: Any) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  (the conditions are metrics)
            await asyncio.sleep(0.01)


async def test_a_client_that_leaves_cancels_its_handler_at_once_and_is_counted():
    kitchen = Kitchen()
    async with kitchen.open() as client:
        request = asyncio.create_task(client.post("/slow"))
        await kitchen.started.wait()
        assert kitchen.metric("agentflux_inflight_requests") == 1
        request.cancel()
        await asyncio.wait_for(kitchen.cancelled.wait(), 1)
        await eventually(lambda: kitchen.metric("agentflux_cancelled_requests_total", route="/slow") == 1)
        assert kitchen.metric("agentflux_inflight_requests") == 0


async def test_a_client_that_leaves_in_the_middle_of_a_stream_cancels_it():
    kitchen = Kitchen()
    async with kitchen.open() as client:
        async with client.stream("GET", "/stream") as reply:
            assert await anext(reply.aiter_lines()) == "first"
            await kitchen.started.wait()
        await asyncio.wait_for(kitchen.cancelled.wait(), 1)
        await eventually(lambda: kitchen.metric("agentflux_cancelled_requests_total", route="/stream") == 1)


async def test_work_that_follows_a_complete_reply_may_finish():
    kitchen = Kitchen()
    async with kitchen.open() as client:
        assert (await client.get("/afterwards", headers={"connection": "close"})).status_code == 200
        await asyncio.wait_for(kitchen.finished.wait(), 2)
        await eventually(lambda: kitchen.metric("agentflux_inflight_requests") == 0)
        assert kitchen.metric("agentflux_cancelled_requests_total", route="/afterwards") is None


# --- Request ids, health, metrics ---


async def test_a_request_id_is_echoed_and_one_is_made_where_there_is_none():
    async with Kitchen().open() as client:
        assert (await client.get("/livez", headers={"x-request-id": "night-shift-7"})).headers["x-request-id"] == "night-shift-7"
        made = {(await client.get("/livez")).headers["x-request-id"] for _ in range(3)}
        assert len(made) == 3
        assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in made)


@pytest.mark.parametrize("given", [b"caf\xe9", b"a\tb", b"x" * 127 + b" " + b"x" * 100])
async def test_a_request_id_that_could_not_travel_on_is_replaced_or_cut(given):
    async with Kitchen().open() as client:
        echoed = (await client.get("/livez", headers={b"x-request-id": given})).headers["x-request-id"]
        assert echoed.isascii()
        assert echoed == echoed.strip()
        assert 32 <= len(echoed) <= 128


async def test_readiness_tells_ready_degraded_and_unready_apart():
    said: dict[str, str | None] = {"engine": None, "redis": None}

    async def engine() -> str | None:
        return said["engine"]

    async def redis() -> str | None:
        return said["redis"]

    async with Kitchen(required={"engine": engine}, optional={"redis": redis}).open() as client:

        async def readiness() -> tuple[int, str]:
            reply = await client.get("/readyz")
            assert reply.json()["checks"] == {name: reason or "ok" for name, reason in said.items()}
            return reply.status_code, reply.json()["status"]

        assert await readiness() == (200, "ready")
        said["redis"] = "Redis does not answer"
        assert await readiness() == (200, "degraded")
        said["engine"] = "the engine is starting"
        assert await readiness() == (503, "unready")
        said["redis"] = None
        assert await readiness() == (503, "unready")


async def test_a_readiness_check_that_hangs_or_breaks_is_unwell_and_readiness_still_answers():
    async def hangs() -> str | None:
        await asyncio.sleep(60)
        return None

    async def breaks() -> str | None:
        raise OSError("no route to host")

    async def refuses() -> str | None:
        raise EngineUnavailable("the engine is starting")

    async with Kitchen(optional={"hangs": hangs, "breaks": breaks, "refuses": refuses}).open() as client:
        started = time.monotonic()
        reply = await client.get("/readyz")
        assert time.monotonic() - started < 30
        assert (reply.status_code, reply.json()["status"]) == (200, "degraded")
        assert reply.json()["checks"] == {
            "hangs": "no answer within 2 s",
            "breaks": "the check itself failed: OSError: no route to host",
            "refuses": "the engine is starting",
        }


async def test_only_known_routes_become_labels():
    async with Kitchen().open() as client:
        for path in ("/orders/1", "/orders/2", "/.env", "/wp-login.php"):
            await client.get(path)
        await client.put("/orders/3")
        page = (await client.get("/metrics")).text
        assert set(re.findall(r'route="([^"]*)"', page)) == {"/orders/{number}", "other"}
        assert 'agentflux_request_duration_seconds_count{route="/orders/{number}",status="200"} 2.0' in page
        assert 'agentflux_request_duration_seconds_count{route="other",status="404"} 2.0' in page


async def test_the_metrics_page_is_packed_for_a_scraper_that_takes_gzip():
    async with Kitchen().open() as client:
        sizes = {}
        for accepted in ("gzip", "identity"):
            async with client.stream("GET", "/metrics", headers={"accept-encoding": accepted}) as reply:
                sizes[reply.headers.get("content-encoding")] = len(raw := b"".join([part async for part in reply.aiter_raw()]))
                page = gzip.decompress(raw) if accepted == "gzip" else raw
                assert b"# TYPE agentflux_request_duration_seconds histogram" in page
                assert reply.headers["vary"] == "accept, accept-encoding"
        assert sizes["gzip"] < sizes[None] / 3
