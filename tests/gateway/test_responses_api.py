"""The Responses door over a real HTTP server, mostly through OpenAI's own client with nothing changed but its base URL."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import openai
import pytest
from fastapi import FastAPI
from openai.types.responses import Response, ResponseStreamEvent
from prometheus_client import CollectorRegistry
from pydantic import TypeAdapter
from starlette.types import ASGIApp, Receive, Scope, Send

from services.gateway.api import responses
from services.gateway.api.turns import Turns
from services.gateway.lookahead import LookAhead
from services.gateway.metrics import GatewayMetrics
from services.gateway.pipeline import Pipeline
from services.gateway.records.stored import Blobs, MemoryBlobs, StoredResponses
from services.gateway.toolsets import Catalogue
from services.gateway.wire.compaction import WISH
from services.shared.chassis.http import install_edge
from services.shared.chassis.settings import ServiceSettings
from services.shared.contracts.arguments import ArgumentsRequest, GeneratedArguments
from services.shared.contracts.calls import Ladder
from services.shared.contracts.errors import ArgumentsInvalid, EngineUnavailable
from services.shared.contracts.selection import Selection, SelectionRequest
from tests.fakes import FakeMemory, FakeSelector, FakeWriter, ScriptedEngine, tool
from tests.gateway.records.test_stored import BrokenBlobs
from tests.shared.serving import served

pytestmark = pytest.mark.anyio
READ = {"type": "function", "strict": False, **tool("read_file", path={"type": "string"}).model_dump()}
STREAM_EVENT: TypeAdapter[Any] = TypeAdapter(ResponseStreamEvent)


def once(request: SelectionRequest) -> str | None:
    """Calls until there is a result, then answers."""
    return None if request.messages[-1]["role"] == "tool" else "read_file"


class SlowSelector(FakeSelector):
    """Takes its time, and remembers whether it was interrupted."""

    def __init__(self, choose: Callable[[SelectionRequest], str | None]) -> None:
        super().__init__(choose)
        self.started, self.cancelled = asyncio.Event(), asyncio.Event()

    async def select(self, request: SelectionRequest) -> Selection:
        self.started.set()
        try:
            await asyncio.sleep(0.3)
        except asyncio.CancelledError:
            self.cancelled.set()
            raise
        return await super().select(request)


class FailingWriter(FakeWriter):
    """Fails after the tool was chosen."""

    async def generate(self, request: ArgumentsRequest) -> GeneratedArguments:
        raise ArgumentsInvalid("twice invalid")


@dataclass(frozen=True)
class Caller:
    """Whom a request comes from."""

    name: str


class KnowsCallers:
    """ASGI middleware that takes the bearer token for the caller's name, as API keys would."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            token = dict(scope["headers"]).get(b"authorization", b"").decode().removeprefix("Bearer ")
            scope.setdefault("state", {})["caller"] = Caller(token)
        await self.app(scope, receive, send)


@dataclass
class Gateway:
    """A served gateway with stand-ins of the other services."""

    http: httpx.AsyncClient
    client: openai.AsyncOpenAI
    selector: FakeSelector
    engine: ScriptedEngine
    registry: CollectorRegistry


@asynccontextmanager
async def gateway(
    choose: Callable[[SelectionRequest], str | None] = once,
    *,
    selector: type[FakeSelector] = FakeSelector,
    writer: FakeWriter | None = None,
    blobs: Blobs | None = None,
    unknown_tools: Any = "ignore",
    knows_callers: bool = False,
) -> AsyncIterator[Gateway]:
    """A gateway whose services are the given stand-ins, and OpenAI's client of it."""
    app = FastAPI()
    edge = install_edge(app, ServiceSettings())
    if knows_callers:
        app.add_middleware(KnowsCallers)
    catalogue, chooser, engine = Catalogue("base", []), selector(choose), ScriptedEngine()
    look_ahead = LookAhead(FakeWriter(), adapters=0)
    pipeline = Pipeline(engine, chooser, writer or FakeWriter(), FakeMemory(), catalogue, Ladder(), look_ahead)
    metrics = GatewayMetrics(edge.registry)
    turns = Turns(pipeline, metrics, request_timeout_s=30, keepalive_s=0.05)
    stored = StoredResponses(blobs or MemoryBlobs(ttl_s=60), metrics, max_record_bytes=1_000_000, max_history_bytes=1_000_000)
    app.include_router(responses.router(turns, catalogue, stored, strict_fields=False, unknown_tools=unknown_tools))
    async with (
        served(app) as url,
        httpx.AsyncClient(base_url=url, timeout=20) as http,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="alice", max_retries=0, timeout=20) as client,
    ):
        yield Gateway(http, client, chooser, engine, edge.registry)


def frames(text: str) -> list[dict[str, Any]]:
    """The events of a stream, whose `event:` lines say what their data say."""
    found = []
    for block in text.split("\n\n"):
        lines = [line for line in block.splitlines() if not line.startswith(":")]
        if lines:
            name, data = lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))
            assert name == data["type"]
            STREAM_EVENT.validate_python(data)
            found.append(data)
    return found


async def test_create_gives_a_response_that_openais_types_accept() -> None:
    async with gateway() as running:
        raw = (await running.http.post("/v1/responses", json={"model": "base", "input": "hi"})).json()
        called = await running.client.responses.create(model="base", input="hi", tools=[READ])
    Response.model_validate(raw)
    assert (raw["object"], raw["status"], raw["output"][0]["content"][0]["text"]) == ("response", "completed", "It is done.")
    assert [item.type for item in called.output] == ["function_call"]
    assert called.output[0].call_id.startswith("call_")
    assert json.loads(called.output[0].arguments) == {"path": "a"}
    assert called.usage is not None
    assert called.usage.total_tokens == 219


async def test_a_conversation_as_codex_keeps_it_goes_on_with_its_functions() -> None:
    patch = {"type": "custom_tool_call", "call_id": "call_1", "name": "apply_patch", "input": "*** Begin Patch"}
    history = [
        {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "Be brief."}]},
        {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Patch a."}]},
        {"type": "reasoning", "summary": [], "content": None, "encrypted_content": "gAAA"},
        {"type": "web_search_call", "id": "ws_1", "status": "completed", "action": {"type": "search", "query": "a"}},
        patch,
        {"type": "custom_tool_call_output", "call_id": "call_1", "output": "Success."},
    ]
    others = [{"type": "custom", "name": "apply_patch"}, {"type": "web_search"}, {"type": "namespace", "name": "fs", "tools": []}]
    asked = {"store": False, "stream": True, "include": ["reasoning.encrypted_content"], "reasoning": {"summary": "auto"}}
    async with gateway() as running:
        body = {"model": "base", "input": history, "tools": [READ, *others], "instructions": "You are Codex.", **asked}
        reply = await running.http.post("/v1/responses", json=body)
        [selection] = running.selector.requests
    assert frames(reply.text)[-1]["type"] == "response.completed"
    assert [message["role"] for message in selection.messages] == ["system", "system", "user", "assistant", "tool"]
    assert [tool.name for tool in selection.tools] == ["read_file"]


async def test_a_stream_says_what_the_whole_reply_says() -> None:
    for tools in ([], [READ]):
        async with gateway() as running:
            stream = await running.client.responses.create(model="base", input="hi", tools=tools, stream=True)
            events = [event async for event in stream]
            whole = await running.client.responses.create(model="base", input="hi", tools=tools)
        assert [event.sequence_number for event in events] == list(range(len(events)))
        assert events[-1].type == "response.completed"
        ours = {"id", "created_at", "completed_at", "output"}
        assert events[-1].response.model_dump(exclude=ours) == whole.model_dump(exclude=ours)
        assert events[-1].response.output_text == whole.output_text
        assert [item.type for item in events[-1].response.output] == [item.type for item in whole.output]


async def test_the_clients_stream_helper_follows_the_events() -> None:
    async with gateway() as running, running.client.responses.stream(model="base", input="hi") as stream:
        text = "".join([event.delta async for event in stream if event.type == "response.output_text.delta"])
        assert (await stream.get_final_response()).output_text == text == "It is done."


async def test_a_stream_has_event_lines_no_done_and_comments_during_a_long_vote() -> None:
    async with gateway(selector=SlowSelector) as running:
        reply = await running.http.post("/v1/responses", json={"model": "base", "input": "hi", "tools": [READ], "stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    assert reply.headers["x-accel-buffering"] == "no"
    assert ": keep-alive\n\n" in reply.text
    assert "[DONE]" not in reply.text
    assert [event["type"] for event in frames(reply.text)][:2] == ["response.created", "response.in_progress"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_loop_by_history(stream: bool) -> None:
    """As openai-agents and the SDK's own examples do it: the output items go back as they came."""
    async with gateway() as running:
        history: list[Any] = [{"role": "user", "content": "Read a."}]
        first = await _created(running, stream, model="base", input=history, tools=[READ], store=False)
        history += [item.model_dump(exclude_none=True) for item in first.output]
        history.append({"type": "function_call_output", "call_id": first.output[0].call_id, "output": "hello"})
        second = await _created(running, stream, model="base", input=history, tools=[READ], store=False)
    assert second.output_text == "It is done."
    assert [message["role"] for message in running.engine.chats[0]["messages"]] == ["user", "assistant", "tool"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_tool_loop_by_previous_response_id(stream: bool) -> None:
    """As agent-framework does it: the second turn is the result alone, with instructions and tools repeated."""
    async with gateway() as running:
        fixed = {
            "model": "base", "instructions": "Be brief.", "tools": [READ], "include": ["reasoning.encrypted_content"],
        }  # fmt: skip
        asked = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Read a."}]}]
        first = await _created(running, stream, input=asked, **fixed)
        result = {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "hello"}
        second = await _created(running, stream, input=[result], previous_response_id=first.id, **fixed)
        third = await _created(running, stream, input="And now?", previous_response_id=second.id, model="base")
    assert (second.output_text, second.previous_response_id) == ("It is done.", first.id)
    assert third.instructions is None
    last = running.engine.chats[-1]["messages"]
    assert [message["role"] for message in last] == ["user", "assistant", "tool", "assistant", "user"]
    assert [last[0]["content"], last[2]["content"], last[4]["content"]] == ["Read a.", "hello", "And now?"]
    assert last[2]["tool_call_id"] == first.output[0].call_id == last[1]["tool_calls"][0]["id"]


async def _created(running: Gateway, stream: bool, **fields: Any) -> Any:
    if not stream:
        return await running.client.responses.create(**fields)
    events = [event async for event in await running.client.responses.create(stream=True, **fields)]
    return events[-1].response


async def test_an_item_may_be_sent_as_a_reference() -> None:
    async with gateway() as running:
        first = await running.client.responses.create(model="base", input="Read a.", tools=[READ])
        given: Any = [
            {"role": "user", "content": "Read a."},
            {"type": "item_reference", "id": first.output[0].id},
            {"type": "function_call_output", "call_id": first.output[0].call_id, "output": "hello"},
        ]
        assert (await running.client.responses.create(model="base", input=given, tools=[READ])).output_text == "It is done."
        with pytest.raises(openai.NotFoundError) as refused:
            await running.client.responses.create(model="base", input=[{"type": "item_reference", "id": "fc_none"}])
    assert refused.value.param == "input.0.id"


async def test_a_stored_response_is_retrieved_as_it_was_and_deleted_for_good() -> None:
    async with gateway() as running:
        made = await running.client.responses.create(model="base", input="hi", metadata={"a": "b"})
        found = await running.client.responses.retrieve(made.id)
        assert found == made
        assert (await running.http.get(f"/v1/responses/{made.id}")).json()["store"] is True
        assert (await running.http.get(f"/v1/responses/{made.id}?stream=true")).status_code == 400
        gone = (await running.http.delete(f"/v1/responses/{made.id}")).json()
        assert gone == {"id": made.id, "object": "response", "deleted": True}
        for again in (running.client.responses.retrieve(made.id), running.client.responses.delete(made.id)):
            with pytest.raises(openai.NotFoundError):
                await again


async def test_what_was_not_to_be_stored_is_not() -> None:
    async with gateway() as running:
        made = await running.client.responses.create(model="base", input="hi", store=False)
        with pytest.raises(openai.NotFoundError):
            await running.client.responses.retrieve(made.id)


async def test_an_unknown_previous_response_is_404_with_its_code_and_param() -> None:
    async with gateway() as running:
        for unknown in ("resp_" + "0" * 32, "nonsense"):
            with pytest.raises(openai.NotFoundError) as refused:
                await running.client.responses.create(model="base", input="hi", previous_response_id=unknown, stream=True)
            assert refused.value.code == "previous_response_not_found"
            assert refused.value.param == "previous_response_id"


async def test_input_items_come_in_pages_newest_first_unless_asked_otherwise() -> None:
    async with gateway() as running:
        given: Any = [{"role": "user", "content": str(number)} for number in range(5)]
        made = await running.client.responses.create(model="base", input=given)
        listed = running.client.responses.input_items.list
        assert [item.content[0].text async for item in listed(made.id, limit=2)] == ["4", "3", "2", "1", "0"]
        assert [item.content[0].text async for item in listed(made.id, order="asc", limit=3)] == ["0", "1", "2", "3", "4"]
        page = (await running.http.get(f"/v1/responses/{made.id}/input_items?limit=2&order=asc")).json()
        assert (page["object"], len(page["data"]), page["has_more"]) == ("list", 2, True)
        assert [page["first_id"], page["last_id"]] == [item["id"] for item in page["data"]]
        last = (await running.http.get(f"/v1/responses/{made.id}/input_items?after={page['last_id']}&order=asc")).json()
        assert (len(last["data"]), last["has_more"]) == (3, False)
        for wrong in ("limit=0", "limit=101", "limit=x", "order=up", "after=msg_none"):
            reply = await running.http.get(f"/v1/responses/{made.id}/input_items?{wrong}")
            assert (reply.status_code, "detail" in reply.json()) == (400, False)
            assert wrong.split("=")[0] in reply.json()["error"]["param"]


async def test_responses_belong_to_the_caller_who_made_them() -> None:
    async with gateway(knows_callers=True) as running:
        made = await running.client.responses.create(model="base", input="hi")
        stranger = running.client.with_options(api_key="bob")
        assert (await running.client.responses.retrieve(made.id)).id == made.id
        with pytest.raises(openai.NotFoundError):
            await stranger.responses.retrieve(made.id)
        with pytest.raises(openai.NotFoundError):
            await stranger.responses.delete(made.id)
        with pytest.raises(openai.NotFoundError):
            await stranger.responses.create(model="base", input="hi", previous_response_id=made.id)
        with pytest.raises(openai.NotFoundError):
            await stranger.responses.create(model="base", input=[{"type": "item_reference", "id": made.output[0].id}])


@pytest.mark.parametrize("stream", [False, True])
async def test_a_store_that_is_down_costs_the_storing_and_is_said_plainly_later(stream: bool) -> None:
    async with gateway(blobs=BrokenBlobs(ttl_s=60)) as running:
        made = await _created(running, stream, model="base", input="hi")
        assert (made.output_text, made.store) == ("It is done.", False)
        assert running.registry.get_sample_value("agentflux_stored_responses_total", {"outcome": "unavailable"}) == 1
        with pytest.raises(openai.InternalServerError) as refused:
            await running.client.responses.create(model="base", input="hi", previous_response_id=made.id)
    assert refused.value.status_code == 503
    assert refused.value.response.headers["retry-after"]


async def test_an_error_before_anything_was_sent_has_its_own_status() -> None:
    class Gone(FakeSelector):
        async def select(self, request: SelectionRequest) -> Selection:
            raise EngineUnavailable("the engine is restarting")

    async with gateway(selector=Gone) as running:
        for stream in (False, True):
            with pytest.raises(openai.InternalServerError) as refused:
                await running.client.responses.create(model="base", input="hi", tools=[READ], stream=stream)
            assert (refused.value.status_code, refused.value.code) == (503, "engine_unavailable")


async def test_an_error_in_the_middle_ends_the_stream_with_a_failed_response_and_raises_in_the_client() -> None:
    async with gateway(writer=FailingWriter()) as running:
        body = {"model": "base", "input": "hi", "tools": [READ], "stream": True}
        said = frames((await running.http.post("/v1/responses", json=body)).text)
        with pytest.raises(openai.APIError, match="twice invalid"):
            async for _ in await running.client.responses.create(model="base", input="hi", tools=[READ], stream=True):
                pass
        with pytest.raises(openai.UnprocessableEntityError):
            await running.client.responses.create(model="base", input="hi", tools=[READ])
        with pytest.raises(openai.NotFoundError):
            await running.client.responses.retrieve(said[-1]["response"]["id"])
    assert [event["type"] for event in said[-2:]] == ["error", "response.failed"]
    assert said[-1]["response"]["error"]["message"] == "twice invalid"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_during_the_vote_ends_it(stream: bool) -> None:
    async with gateway(selector=SlowSelector) as running:
        assert isinstance(running.selector, SlowSelector)
        request = asyncio.create_task(running.client.responses.create(model="base", input="hi", tools=[READ], stream=stream))
        await running.selector.started.wait()
        request.cancel()
        async with asyncio.timeout(5):
            await running.selector.cancelled.wait()


async def test_an_openai_agents_turn() -> None:
    async with gateway() as running:
        body = {
            "model": "base", "include": [], "instructions": "Be brief.", "input": [{"role": "user", "content": "Read a."}],
            "tools": [{**READ, "strict": True}], "parallel_tool_calls": False,
        }  # fmt: skip
        first = (await running.http.post("/v1/responses", json=body)).json()
        [call] = first["output"]
        result = {"call_id": call["call_id"], "output": "hello", "type": "function_call_output"}
        reply = await running.http.post("/v1/responses", json={**body, "input": [*body["input"], call, result]})
    assert reply.json()["output"][0]["content"][0]["text"] == "It is done."


async def test_a_codex_turn() -> None:
    functions = [{**READ, "name": name, "strict": False} for name in ("shell", "read_file", "update_plan")]
    nested = {"type": "namespace", "name": "agents", "description": "", "tools": [functions[0]]}
    body: dict[str, Any] = {
        "model": "base", "instructions": "You are a coding agent.", "stream": True, "store": False, "tool_choice": "auto",
        "parallel_tool_calls": True, "reasoning": {"summary": "auto"}, "include": ["reasoning.encrypted_content"],
        "prompt_cache_key": "01234567-thread", "client_metadata": {"x": "y"},
        "tools": [*functions, nested, {"type": "web_search", "external_web_access": False}],
        "input": [
            {"type": "message", "role": "developer", "content": [{"type": "input_text", "text": "<permissions>"}]},
            {"type": "message", "role": "user", "content": [{"type": "input_text", "text": "Read a."}]},
        ],
    }  # fmt: skip
    headers = {"session-id": "01234567", "thread-id": "01234567", "x-client-request-id": "01234567"}
    async with gateway() as running:
        said = frames((await running.http.post("/v1/responses", json=body, headers=headers)).text)
        calls = [event["item"] for event in said if event["type"] == "response.output_item.done"]
        assert [call["name"] for call in calls][:1] == ["read_file"]
        results = [{"type": "function_call_output", "call_id": call["call_id"], "output": "hello"} for call in calls]
        reasoning = {"type": "reasoning", "summary": [], "encrypted_content": None}
        body["input"] += [reasoning, *calls, *results]
        said = frames((await running.http.post("/v1/responses", json=body, headers=headers)).text)
    assert said[-1]["response"]["output"][0]["content"][0]["text"] == "It is done."
    assert [each.name for each in running.selector.requests[0].tools] == ["shell", "read_file", "update_plan"]


async def test_unknown_tools_are_refused_where_the_operator_wants_it() -> None:
    async with gateway(unknown_tools="refuse") as running:
        with pytest.raises(openai.BadRequestError) as refused:
            await running.client.responses.create(model="base", input="hi", tools=[{"type": "web_search"}])
    assert refused.value.param == "tools.0"


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"input": "hi"}, 400, "model"),
        ({"model": "base"}, 400, "input"),
        ({"model": "bse", "input": "hi"}, 404, "model"),
        ({"model": "base", "input": "hi", "max_output_tokens": 0}, 400, "max_output_tokens"),
        ({"model": "base", "input": "hi", "temperature": 3}, 400, "temperature"),
        ({"model": "base", "input": "hi", "truncation": "middle"}, 400, "truncation"),
        ({"model": "base", "input": "hi", "metadata": {"a": 1}}, 400, "metadata.a"),
        ({"model": "base", "input": "hi", "metadata": {str(n): "" for n in range(17)}}, 400, "metadata"),
        ({"model": "base", "input": "hi", "background": True}, 400, "background"),
        ({"model": "base", "input": [{"role": "user", "content": [{"type": "input_image"}]}]}, 400, "input.0.content.0"),
        ([], 400, None),
    ],
)
async def test_bad_input_is_named_in_openais_envelope(body: Any, status: int, param: str | None) -> None:
    async with gateway() as running:
        reply = await running.http.post("/v1/responses", json=body)
    assert (reply.status_code, list(reply.json())) == (status, ["error"])
    assert reply.json()["error"]["param"] == param


async def test_half_an_emoji_is_answered_and_stored() -> None:
    async with gateway() as running:
        body = b'{"model": "base", "input": "hi \\ud83d", "tools": [], "metadata": {}}'
        reply = await running.http.post("/v1/responses", content=body, headers={"content-type": "application/json"})
        assert reply.status_code == 200
        items = await running.http.get(f"/v1/responses/{reply.json()['id']}/input_items")
        assert items.json()["data"][0]["content"][0]["text"] == "hi ?"


@pytest.mark.parametrize("truncation", ["auto", "disabled"])
async def test_truncation_leaves_out_the_oldest_messages_of_the_prompt_and_nothing_of_what_is_stored(truncation: str) -> None:
    said = [{"role": "user" if number % 2 == 0 else "assistant", "content": f"{number} " * 20} for number in range(21)]
    async with gateway(lambda _: None) as running:
        running.engine.context = 200
        asked = {"model": "base", "input": said, "truncation": truncation}
        response = (await running.http.post("/v1/responses", json=asked)).json()
        items = (await running.http.get(f"/v1/responses/{response['id']}/input_items", params={"limit": 100})).json()["data"]
        [sent] = [chat["messages"] for chat in running.engine.chats]
    assert response["truncation"] == truncation
    assert sent[-1]["content"] == said[-1]["content"]
    assert (len(sent) < 10) == (truncation == "auto")
    assert len(items) == 21


async def test_what_a_model_thinks_is_kept_with_the_response_and_not_fed_back() -> None:
    async with gateway(lambda _: None) as running:
        told = running.engine.chat

        async def thinking(body: dict[str, Any]) -> dict[str, Any]:
            reply = await told(body)
            reply["choices"][0]["message"]["reasoning"] = "Hm."
            return reply

        running.engine.chat = thinking  # type: ignore[method-assign]
        first = await running.client.responses.create(model="base", input="hi")
        second = await running.client.responses.create(model="base", input="and?", previous_response_id=first.id)
        again = await running.client.responses.create(
            model="base", input=[{"type": "item_reference", "id": item.id} for item in first.output if item.id]
        )
        kept = await running.client.responses.retrieve(first.id)
    assert [item.type for item in kept.output] == [item.type for item in second.output] == ["reasoning", "message"]
    assert [item.type for item in again.output] == ["reasoning", "message"]
    assert "Hm." not in str(running.engine.chats)


async def test_tokens_are_counted_with_tools_and_what_was_stored() -> None:
    async with gateway() as running:
        count = running.client.responses.input_tokens.count
        few = await count(model="base", input="hi")
        many = await count(model="base", input="hi", tools=[READ], instructions="Be brief.", tool_choice="required")
        first = await running.client.responses.create(model="base", input="hi")
        following = await count(input="and?", previous_response_id=first.id)
        plain = await running.http.post("/v1/responses/input_tokens", json={"model": None, "input": "hi"})
        missing = await running.http.post("/v1/responses/input_tokens", json={"input": "hi", "previous_response_id": "resp_0"})
    assert few.object == "response.input_tokens"
    assert few.input_tokens < many.input_tokens
    assert few.input_tokens < following.input_tokens
    assert plain.json() == {"object": "response.input_tokens", "input_tokens": few.input_tokens}
    assert missing.status_code == 404
    assert len(running.engine.chats) == 1


async def test_a_conversation_is_compacted_and_goes_on() -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "read_file", "arguments": "{}"}
    said = [
        {"role": "user", "content": "Read a."},
        call,
        {"type": "function_call_output", "call_id": "call_1", "output": "hello"},
    ]
    async with gateway() as running:
        compacted = await running.client.responses.compact(model="base", input=said)
        kept = [item.model_dump(mode="json", exclude_unset=True, warnings=False) for item in compacted.output]
        further = [*kept, {"role": "user", "content": "And b?"}]
        response = await running.client.responses.create(model="base", input=further, tool_choice="none")
        following = await running.client.responses.create(model="base", input="And c?", previous_response_id=response.id)
        items = [item.type async for item in running.client.responses.input_items.list(response.id, order="asc")]
    assert (compacted.object, [item.type for item in compacted.output]) == ("response.compaction", ["message", "compaction"])
    assert compacted.usage.total_tokens == 15
    asked, answered, again = (chat["messages"] for chat in running.engine.chats)
    assert [message["role"] for message in asked] == ["user", "assistant", "tool", "user"]
    assert asked[-1]["content"] == WISH
    assert [message["role"] for message in answered] == ["user", "assistant", "user"]
    assert answered[1]["content"].endswith("It is done.")
    assert items == ["message", "compaction", "message"]
    assert again[:3] == answered
    assert following.status == "completed"


@pytest.mark.parametrize("stream", [False, True])
async def test_a_trigger_at_the_end_of_the_input_asks_for_a_compaction(stream: bool) -> None:
    given = [{"role": "user", "content": "Read a."}, {"type": "compaction_trigger"}]
    async with gateway() as running:
        reply = await running.http.post(
            "/v1/responses", json={"model": "base", "input": given, "tools": [READ], "stream": stream}
        )
        response = reply.json() if not stream else frames(reply.text)[-1]["response"]
        kept = await running.client.responses.retrieve(response["id"])
    if stream:
        told = frames(reply.text)
        assert [event["sequence_number"] for event in told] == list(range(5))
        item_events = ["response.output_item.added", "response.output_item.done"]
        assert [event["type"] for event in told[2:]] == [*item_events, "response.completed"]
        assert told[3]["item"] == response["output"][0]
    Response.model_validate(response)
    assert (response["status"], [item["type"] for item in response["output"]]) == ("completed", ["compaction"])
    assert kept.output[0].type == "compaction"
    assert running.engine.chats[0]["messages"][-1]["content"] == WISH
    assert running.selector.requests == []


async def test_a_result_may_come_after_the_compaction_of_its_call() -> None:
    call = {"type": "function_call", "call_id": "call_1", "name": "read_file", "arguments": '{"path":"a"}'}
    said = [{"role": "user", "content": "Read a."}, call]
    result = {"type": "function_call_output", "call_id": "call_1", "output": "hello"}
    async with gateway() as running:
        responses = running.client.responses
        compacted = await responses.compact(model="base", input=said)
        kept = [item.model_dump(mode="json", exclude_unset=True, warnings=False) for item in compacted.output]
        triggered = await responses.create(model="base", input=[*said, {"type": "compaction_trigger"}])
        [trigger] = [item.model_dump(mode="json", exclude_unset=True) for item in triggered.output]
        for given, previous in (([*kept, result], None), ([trigger, result], None), ([result], triggered.id)):
            await responses.create(model="base", input=given, previous_response_id=previous, tool_choice="none")
            *_, called, told = running.engine.chats[-1]["messages"]
            assert called["content"].endswith("It is done.")
            assert called["tool_calls"] == [
                {"id": "call_1", "type": "function", "function": {"name": "read_file", "arguments": '{"path":"a"}'}}
            ]
            assert told == {"role": "tool", "tool_call_id": "call_1", "content": "hello"}
        with pytest.raises(openai.BadRequestError, match="answers no function_call before it"):
            await responses.create(model="base", input=[*kept, {**result, "call_id": "call_2"}])


async def test_what_is_compacted_may_be_stored_and_may_be_too_long_for_the_engine() -> None:
    said = [{"role": "user" if number % 2 == 0 else "assistant", "content": f"{number} " * 20} for number in range(21)]
    async with gateway(lambda _: None) as running:
        first = await running.client.responses.create(model="base", input=said)
        running.engine.context = 200
        compacted = await running.client.responses.compact(model="base", previous_response_id=first.id)
    asked = running.engine.chats[-1]
    assert len(asked["messages"]) < 10
    assert asked["max_tokens"] == 25
    assert len(compacted.output) == 12


async def test_a_message_of_the_assistant_at_the_end_is_history() -> None:
    async with gateway() as running:
        said = [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "The answer is"}]
        response = await running.client.responses.create(model="base", input=said)
    assert response.output_text == "It is done."
    assert "continue_final_message" not in running.engine.chats[0]
