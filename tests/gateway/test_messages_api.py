"""The Messages door over a real HTTP server, mostly asked by Anthropic's own client, of which only the base URL is changed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import anthropic
import httpx
import pytest
from anthropic.types import Message, MessageParam, ToolParam, ToolUseBlock
from fastapi import FastAPI

from services.gateway.api import messages
from services.gateway.api.headers import TruthHeaders
from services.gateway.api.turns import Turns
from services.gateway.lookahead import LookAhead
from services.gateway.metrics import GatewayMetrics
from services.gateway.pipeline import Pipeline
from services.gateway.toolsets import Catalogue, Toolset
from services.gateway.wire.requests import CONTINUING
from services.shared.chassis.http import install_edge
from services.shared.chassis.settings import ServiceSettings
from services.shared.contracts.arguments import ArgumentsRequest, GeneratedArguments
from services.shared.contracts.calls import Ladder
from services.shared.contracts.errors import ArgumentsInvalid, ContextLengthExceeded, EngineUnavailable
from services.shared.contracts.selection import Selection, SelectionRequest
from tests.fakes import FakeMemory, FakeSelector, FakeWriter, ScriptedEngine, SlowSelector, tool
from tests.shared.serving import served

pytestmark = pytest.mark.anyio

READ: ToolParam = {
    "name": "read_file",
    "description": "Reads a file.",
    "input_schema": {"type": "object", "properties": {"path": {"type": "string"}}, "required": ["path"]},
}
QUESTION: MessageParam = {"role": "user", "content": "Read a."}
ASK: dict[str, Any] = {"model": "base", "max_tokens": 64, "messages": [QUESTION], "tools": [READ]}


def reads_once(request: SelectionRequest) -> str | None:
    return None if request.messages[-1]["role"] == "tool" else "read_file"


class FailingSelector(FakeSelector):
    """Has nothing but an error."""

    def __init__(self, error: Exception) -> None:
        super().__init__(reads_once)
        self.error = error

    async def select(self, request: SelectionRequest) -> Selection:
        raise self.error


class FailingWriter(FakeWriter):
    async def generate(self, request: ArgumentsRequest) -> GeneratedArguments:
        raise ArgumentsInvalid("twice invalid")


@asynccontextmanager
async def gateway(*, selector: Any = None, writer: Any = None, engine: Any = None, **settings: Any) -> AsyncIterator[str]:
    """The URL of a gateway whose services are the given stand-ins."""
    app = FastAPI()
    edge = install_edge(app, ServiceSettings(**settings))
    app.add_middleware(messages.AnthropicErrors)
    app.add_middleware(TruthHeaders)
    catalogue = Catalogue("base", [Toolset("files", [tool("read_file", path={"type": "string"})], "d" * 64)])
    pipeline = Pipeline(
        engine or ScriptedEngine(),
        selector or FakeSelector(reads_once),
        writer or FakeWriter(),
        FakeMemory(),
        catalogue,
        Ladder(),
        LookAhead(FakeWriter(), adapters=0),
    )
    turns = Turns(pipeline, GatewayMetrics(edge.registry), 30, keepalive_s=0.05)
    app.include_router(messages.router(turns, catalogue, unknown_tools="ignore"))
    async with served(app) as url:
        yield url


@asynccontextmanager
async def client(**options: Any) -> AsyncIterator[anthropic.AsyncAnthropic]:
    """Anthropic's client of such a gateway; it does not try again, so that its errors are seen."""
    async with gateway(**options) as url, anthropic.AsyncAnthropic(base_url=url, api_key="any", max_retries=0) as asking:
        yield asking


async def asked(asking: anthropic.AsyncAnthropic, *, stream: bool, **fields: Any) -> Message:
    if not stream:
        message: Message = await asking.messages.create(**{**ASK, **fields})
        return message
    async with asking.messages.stream(**{**ASK, **fields}) as told:
        return await told.get_final_message()


@pytest.mark.parametrize("stream", [False, True])
async def test_the_client_gets_a_tool_use(stream: bool) -> None:
    async with client() as asking:
        message = await asked(asking, stream=stream)
    (block,) = message.content
    assert isinstance(block, ToolUseBlock)
    assert (block.name, block.input, message.stop_reason) == ("read_file", {"path": "a"}, "tool_use")
    assert message.usage.input_tokens == 146
    assert (message.usage.cache_read_input_tokens, message.usage.output_tokens) == (64, 9)


@pytest.mark.parametrize("stream", [False, True])
async def test_the_client_goes_through_a_loop_of_tools(stream: bool) -> None:
    selector, engine = FakeSelector(reads_once), ScriptedEngine()
    history: list[MessageParam] = [QUESTION]
    async with client(selector=selector, engine=engine) as asking:
        for _ in range(3):
            message = await asked(asking, stream=stream, messages=history, system="Be brief.")
            history.append({"role": "assistant", "content": message.to_param()["content"]})
            uses = [block for block in message.content if block.type == "tool_use"]
            if not uses:
                break
            results: Any = [{"type": "tool_result", "tool_use_id": use.id, "content": "The file says hello."} for use in uses]
            history.append({"role": "user", "content": results})
    assert (message.content[0].type, message.stop_reason) == ("text", "end_turn")
    assert [each["role"] for each in engine.chats[0]["messages"]] == ["system", "user", "assistant", "tool"]
    assert engine.chats[0]["max_tokens"] == 64


@pytest.mark.parametrize("stream", [False, True])
async def test_the_clients_own_loop_goes_on_without_the_thread_that_it_asks_for(stream: bool) -> None:
    @anthropic.beta_async_tool
    async def read_file(path: str) -> str:
        """Reads a file."""
        return f"{path} says hello."

    engine = ScriptedEngine()
    async with client(engine=engine) as asking:
        runner = asking.beta.messages.tool_runner(
            model="base", max_tokens=64, messages=[{"role": "user", "content": "Read a."}], tools=[read_file], stream=stream
        )
        message = await runner.until_done()
    assert message.content[0].type == "text"
    assert [each["role"] for each in engine.chats[0]["messages"]] == ["user", "assistant", "tool"]
    assert engine.chats[0]["messages"][-1]["content"] == "a says hello."


async def test_a_thread_is_refused_by_the_code_that_clients_know() -> None:
    async with client() as asking:
        with pytest.raises(anthropic.BadRequestError, match="whole conversation") as caught:
            await asking.beta.messages.create(**ASK, thread={"type": "create"})
    assert caught.value.body["error"]["details"] == {"error_code": "thread_unsupported_request"}


async def test_a_conversation_as_claude_code_keeps_it_goes_on() -> None:
    found = [{"type": "tool_reference", "tool_name": "read_file"}]
    history: Any = [
        {"role": "user", "content": [{"type": "text", "text": "Read a.", "cache_control": {"type": "ephemeral"}}]},
        {
            "role": "assistant",
            "content": [
                {"type": "thinking", "thinking": "hm", "signature": "x"},
                {"type": "server_tool_use", "id": "srvtoolu_1", "name": "web_search", "input": {"query": "a"}},
                {"type": "web_search_tool_result", "tool_use_id": "srvtoolu_1", "content": []},
                {"type": "tool_use", "id": "toolu_1", "name": "ToolSearch", "input": {"query": "read"}},
            ],
        },
        {"role": "user", "content": [{"type": "tool_result", "tool_use_id": "toolu_1", "content": found}]},
    ]
    engine = ScriptedEngine()
    async with client(engine=engine) as asking:
        await asked(asking, stream=True, messages=history, thinking={"type": "enabled", "budget_tokens": 1024})
    assert [each["role"] for each in engine.chats[0]["messages"]] == ["user", "assistant", "tool"]
    assert engine.chats[0]["messages"][-1]["content"] == "read_file"


async def test_the_client_sees_text_as_it_comes() -> None:
    async with client() as asking, asking.messages.stream(**{**ASK, "tools": []}) as told:
        assert [text async for text in told.text_stream] == ["It ", "is ", "done."]


@pytest.mark.parametrize("stream", [False, True])
async def test_the_answer_goes_on_where_the_client_began_it(stream: bool) -> None:
    engine = ScriptedEngine()
    begun: list[MessageParam] = [QUESTION, {"role": "assistant", "content": "It "}]
    async with client(engine=engine) as asking:
        message = await asked(asking, stream=stream, messages=begun, tools=[])
        await asking.messages.count_tokens(model="base", messages=begun)
    assert message.content[0].type == "text"
    (chat,) = engine.chats
    assert (chat["continue_final_message"], chat["add_generation_prompt"]) == (True, False)
    assert chat["messages"][-1] == {"role": "assistant", "content": "It "}
    assert {name: engine.counted[0][name] for name in CONTINUING} == CONTINUING


async def test_with_tools_a_begun_answer_is_part_of_the_conversation() -> None:
    selector, engine = FakeSelector(lambda _: None), ScriptedEngine()
    async with client(selector=selector, engine=engine) as asking:
        await asked(asking, stream=False, messages=[QUESTION, {"role": "assistant", "content": "I look."}])
    assert selector.requests[0].messages[-1] == {"role": "assistant", "content": "I look."}
    assert "continue_final_message" not in engine.chats[0]


async def test_a_toolset_as_model_brings_its_tools() -> None:
    async with client() as asking:
        message = await asking.messages.create(model="files", max_tokens=64, messages=[QUESTION])
    assert message.model == "files"
    assert message.content[0].type == "tool_use"


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("error", "raised", "kind"),
    [
        (EngineUnavailable("the engine is restarting"), anthropic.InternalServerError, "overloaded_error"),
        (ContextLengthExceeded("too long"), anthropic.BadRequestError, "invalid_request_error"),
    ],
)
async def test_errors_before_the_first_event_have_the_classes_of_the_client(stream, error, raised, kind) -> None:
    async with client(selector=FailingSelector(error)) as asking:
        with pytest.raises(raised) as caught:
            await asked(asking, stream=stream)
    assert caught.value.status_code == error.status
    assert caught.value.body["error"] == {"type": kind, "message": error.message, "details": {"error_code": error.code}}
    assert caught.value.request_id == caught.value.body["request_id"] == caught.value.response.headers["x-request-id"]


async def test_a_claude_is_not_found_and_the_error_says_what_there_is() -> None:
    async with client() as asking:
        with pytest.raises(anthropic.NotFoundError, match="base, files") as caught:
            await asked(asking, stream=False, model="claude-of-tomorrow")
    assert caught.value.body["error"]["type"] == "not_found_error"


async def test_bad_input_is_a_bad_request_that_names_it() -> None:
    image: Any = {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": ""}}
    async with client() as asking:
        with pytest.raises(anthropic.BadRequestError, match=r"messages\.0\.content\.0 is a block of type 'image'"):
            await asked(asking, stream=True, messages=[{"role": "user", "content": [image]}])
        with pytest.raises(anthropic.BadRequestError, match="max_tokens"):
            await asked(asking, stream=False, max_tokens=0)


async def test_a_body_that_is_too_large_never_reaches_the_door_and_still_gets_its_shape() -> None:
    async with client(max_body_bytes=1024) as asking:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await asked(asking, stream=False, system="x" * 2000)
    assert (caught.value.status_code, caught.value.body["error"]["type"]) == (413, "request_too_large")


async def test_tokens_are_counted_as_the_base_model_reads_them() -> None:
    async with client() as asking:
        few = await asking.messages.count_tokens(model="base", messages=[QUESTION])
        many = await asking.messages.count_tokens(model="base", messages=[QUESTION], tools=[READ], system="Be brief.")
        with pytest.raises(anthropic.NotFoundError, match="base, files"):
            await asking.messages.count_tokens(model="claude-of-tomorrow", messages=[QUESTION])
    assert 0 < few.input_tokens < many.input_tokens


async def test_an_error_in_the_middle_of_a_stream_is_an_event_that_the_client_raises() -> None:
    async with client(writer=FailingWriter()) as asking:
        with pytest.raises(anthropic.APIStatusError) as caught:
            await asked(asking, stream=True)
    assert caught.value.body["error"]["details"]["error_code"] == "arguments_invalid"
    assert caught.value.body["request_id"] == caught.value.request_id


async def test_a_long_vote_is_bridged_by_pings() -> None:
    async with gateway(selector=SlowSelector(0.4, reads_once)) as url, httpx.AsyncClient(base_url=url) as plain:
        reply = await plain.post("/v1/messages", json={**ASK, "stream": True})
    assert reply.headers["content-type"].startswith("text/event-stream")
    frames = [frame.split("\n") for frame in reply.text.strip().split("\n\n") if not frame.startswith(":")]
    for event, data in frames:
        assert event == f"event: {json.loads(data.removeprefix('data: '))['type']}"
    kinds = [event.removeprefix("event: ") for event, _ in frames]
    assert kinds[:2] == ["message_start", "ping"]
    assert kinds.count("message_start") == 1
    assert kinds[-1] == "message_stop"


async def test_the_headers_say_who_decided() -> None:
    async with client() as asking:
        raw = await asking.messages.with_raw_response.create(**ASK)
    assert json.loads(raw.headers["x-agentflux-selection"])["tool"] == "read_file"
    assert raw.headers["request-id"] == raw.headers["x-request-id"]


@pytest.mark.parametrize("stream", [False, True])
async def test_a_client_that_leaves_during_the_vote_ends_it(stream: bool) -> None:
    selector = SlowSelector(60, reads_once)
    async with gateway(selector=selector) as url, httpx.AsyncClient(base_url=url) as plain:
        request = asyncio.create_task(plain.post("/v1/messages", json={**ASK, "stream": stream}))
        await selector.started.wait()
        request.cancel()
        async with asyncio.timeout(5):
            await selector.cancelled.wait()


async def test_a_client_that_leaves_during_the_answer_ends_it() -> None:
    closed = asyncio.Event()

    class Endless(ScriptedEngine):
        async def stream_chat(self, body: dict[str, Any]) -> AsyncGenerator[dict[str, Any]]:
            try:
                while True:
                    yield {"choices": [{"index": 0, "delta": {"content": "word "}, "finish_reason": None}]}
                    await asyncio.sleep(0.01)
            finally:
                closed.set()

    async with client(engine=Endless()) as asking:
        async with asking.messages.stream(**{**ASK, "tools": []}) as told:
            assert await anext(told.text_stream) == "word "
        async with asyncio.timeout(5):
            await closed.wait()


async def test_what_anthropics_clients_ask_for_elsewhere_fails_in_their_words() -> None:
    async with client() as asking:
        for asked_for in (asking.messages.batches.list, asking.beta.files.list, asking.beta.skills.list):
            with pytest.raises(anthropic.NotFoundError) as caught:
                await asked_for()
            assert caught.value.body["error"]["type"] == "not_found_error"
            assert caught.value.body["request_id"] == caught.value.request_id


async def test_other_errors_of_the_server_keep_their_words() -> None:
    async def refuse(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 400, "headers": [(b"content-type", b"text/plain")]})
        await send({"type": "http.response.body", "body": b"Disallowed", "more_body": True})
        await send({"type": "http.response.body", "body": b" CORS origin"})

    transport = httpx.ASGITransport(messages.AnthropicErrors(refuse))
    async with httpx.AsyncClient(transport=transport, base_url="http://gateway") as plain:
        assert (await plain.post("/v1/messages")).text == "Disallowed CORS origin"
        assert "request-id" not in (await plain.post("/v1/chat/completions")).headers
