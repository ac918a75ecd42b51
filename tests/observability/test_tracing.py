"""One trace id on the whole way, from the gateway to an MCP server, and spans that are called as the conventions want it."""

from __future__ import annotations

import json
import logging
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
import yaml
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deploy.local.plan import REPOSITORY
from services.sandbox.pinning import PinnedTool
from services.sandbox.settings import SandboxSettings
from services.shared.chassis.logging import configure_logging
from services.shared.chassis.telemetry import tracer
from services.shared.contracts import semconv
from services.shared.contracts.execution import ToolCallSpec
from services.shared.contracts.tools import Tool
from tests.observability import telling_server
from tests.sandbox.conftest import pin
from tests.sandbox.conftest import served as served_sandbox
from tests.stack import running_stack

pytestmark = [pytest.mark.anyio, pytest.mark.real]

TRACE = "0af7651916cd43dd8448eb211c80319c"
PARENT = "b7ad6b7169203331"
HEADERS = {"traceparent": f"00-{TRACE}-{PARENT}-01"}
WEATHER = {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]}
TOOLS = [{"type": "function", "function": {"name": "get_weather", "description": "Weather", "parameters": WEATHER}}]


def ask(text: str, **fields: object) -> dict[str, object]:
    return {"model": "base", "messages": [{"role": "user", "content": text}], "tools": TOOLS, **fields}


def by_name(spans: InMemorySpanExporter) -> dict[str, list[ReadableSpan]]:
    found: dict[str, list[ReadableSpan]] = {}
    for span in spans.get_finished_spans():
        if f"{span.context.trace_id:032x}" == TRACE:
            found.setdefault(span.name, []).append(span)
    return found


def parent_of(span: ReadableSpan) -> int:
    assert span.parent is not None
    return span.parent.span_id


async def test_a_tool_call_is_one_trace_from_the_gateway_to_the_engine(spans: InMemorySpanExporter) -> None:
    async with running_stack() as stack, httpx.AsyncClient(base_url=stack.url, headers=HEADERS, timeout=60) as client:
        reply = await client.post("/v1/chat/completions", json=ask("call get_weather"))
        assert reply.raise_for_status().json()["choices"][0]["finish_reason"] == "tool_calls"
        sent_to_engine = [header.split("-")[1:3] for header in stack.engine.traceparents]
    found = by_name(spans)
    [gateway], [selector], [arguments] = (
        found[f"POST {path}"] for path in ("/v1/chat/completions", "/v1/select", "/v1/arguments")
    )
    assert parent_of(gateway) == int(PARENT, 16)
    assert parent_of(selector) == parent_of(arguments) == gateway.context.span_id
    engine = {parent_of(span): span for span in found["text_completion base"]}
    assert engine.keys() == {selector.context.span_id, arguments.context.span_id}
    # vLLM is handed the span that waits for it.
    waiting = {f"{span.context.span_id:016x}" for span in found["text_completion base"]}
    assert {(trace_id, span_id) for trace_id, span_id in sent_to_engine} == {(TRACE, span_id) for span_id in waiting}
    assert len(spans.get_finished_spans()) == 3 + len(sent_to_engine), "a span per hop, and no more"

    assert gateway.attributes is not None
    assert gateway.attributes[semconv.OPERATION] == "chat"
    assert gateway.attributes[semconv.OUTCOME] == "tool_call"
    assert gateway.attributes[semconv.INPUT_TOKENS] == reply.json()["usage"]["prompt_tokens"]
    assert selector.attributes is not None
    assert selector.attributes[semconv.TOOL_NAME] == "get_weather"
    assert 0.9 < float(str(selector.attributes[semconv.MARGIN])) <= 1
    assert arguments.attributes is not None
    assert arguments.attributes[semconv.ATTEMPTS] == 1
    for span in engine.values():
        assert span.kind is trace.SpanKind.CLIENT
        assert span.attributes is not None
        assert span.attributes[semconv.REQUEST_MODEL] == "base"
    recorded = json.dumps([dict(span.attributes or {}) for span in spans.get_finished_spans()])
    assert "Paris" not in recorded, "content is not recorded"


@pytest.mark.parametrize("stream", [False, True])
async def test_an_answer_is_a_chat_span_below_the_gateways(spans: InMemorySpanExporter, stream: bool) -> None:
    async with running_stack() as stack, httpx.AsyncClient(base_url=stack.url, headers=HEADERS, timeout=60) as client:
        reply = await client.post("/v1/chat/completions", json=ask("hello", stream=stream))
        assert "You" in reply.raise_for_status().text
    found = by_name(spans)
    [gateway], [chat] = found["POST /v1/chat/completions"], found["chat base"]
    assert parent_of(chat) == gateway.context.span_id
    assert chat.attributes is not None
    assert chat.attributes[semconv.OUTPUT_TOKENS] == 3
    assert stack.engine.traceparents[-1].split("-")[2] == f"{chat.context.span_id:016x}"


async def test_an_error_is_named_on_its_span(spans: InMemorySpanExporter) -> None:
    async with running_stack() as stack, httpx.AsyncClient(base_url=stack.url, headers=HEADERS) as client:
        assert (await client.post("/v1/chat/completions", json={"model": "base"})).status_code == 400
    [span] = by_name(spans)["POST /v1/chat/completions"]
    assert span.attributes is not None
    assert span.attributes[semconv.HTTP_STATUS] == 400
    assert span.attributes[semconv.ERROR_TYPE] == "invalid_request"


async def test_every_line_that_is_logged_for_a_request_has_its_trace_id(capfd: pytest.CaptureFixture[str]) -> None:
    before, level = logging.root.handlers[:], logging.root.level
    async with running_stack() as stack, httpx.AsyncClient(base_url=stack.url, headers=HEADERS, timeout=60) as client:
        capfd.readouterr()
        configure_logging("test", "info")
        try:
            await client.post("/v1/chat/completions", json=ask("call get_weather"))
            await client.post("/v1/chat/completions", json={"model": "base"})
        finally:
            logging.root.handlers[:] = before
            logging.root.setLevel(level)
    lines = [json.loads(line) for line in capfd.readouterr().err.splitlines() if line.startswith("{")]
    of_requests = [line for line in lines if "request_id" in line]
    assert {line["event"] for line in of_requests} >= {"selected", "request failed"}
    assert {line.get("trace_id") for line in of_requests} == {TRACE}


@pytest.fixture(scope="module")
def telling(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A toolset whose tool tells what it was sent."""
    root = tmp_path_factory.mktemp("telling")
    folder = root / "telling"
    folder.mkdir()
    shutil.copy(telling_server.__file__, folder / "server.py")
    (folder / "toolset.yaml").write_text(yaml.safe_dump({"command": ["/usr/bin/python3", "/toolset/server.py"]}))
    tool = telling_server.TOOL
    pin(folder, [PinnedTool(Tool(name=tool["name"], description=tool["description"], parameters=tool["inputSchema"]))])
    # Tools run as another user when the tests run as root.
    for path in [root, *root.rglob("*")]:
        path.chmod(0o755 if path.is_dir() else 0o644)
    return root


async def test_a_tools_server_gets_the_trace_in_its_meta(spans: InMemorySpanExporter, telling: Path, tmp_path: Path) -> None:
    settings = SandboxSettings(port=0, toolsets_dir=telling, workspace_dir=tmp_path / "workspace", drain_timeout_s=0)
    async with served_sandbox(settings) as (_, client):
        with tracer.start_as_current_span("agent") as agent:
            spec = ToolCallSpec(toolset="telling", tool="meta", arguments="{}", call_id="call_1")
            result = await client.call_tool(spec, timeout_s=30)
    _, trace_id, span_id, flags = json.loads(result.content[0].text or "")["traceparent"].split("-")
    assert trace_id == f"{agent.get_span_context().trace_id:032x}"
    assert int(flags, 16) & trace.TraceFlags.SAMPLED
    found = {span.name: span for span in spans.get_finished_spans() if f"{span.context.trace_id:032x}" == trace_id}
    sandbox, mcp = found["execute_tool meta"], found["MCP send tools/call meta"]
    assert parent_of(sandbox) == agent.get_span_context().span_id
    assert parent_of(mcp) == sandbox.context.span_id
    assert span_id == f"{mcp.context.span_id:016x}"
    assert sandbox.attributes is not None
    assert sandbox.attributes[semconv.TOOL_CALL_ID] == "call_1"
    assert sandbox.attributes[semconv.COLD_START] is True
    assert semconv.ERROR_TYPE not in sandbox.attributes


@pytest.mark.skipif(shutil.which("node") is None, reason="the filesystem server needs Node.js")
async def test_a_refusal_of_the_filesystem_server_is_a_tool_error(spans: InMemorySpanExporter, tmp_path: Path) -> None:
    toolsets = REPOSITORY / "deploy" / "toolsets"
    settings = SandboxSettings(port=0, toolsets_dir=toolsets, workspace_dir=tmp_path / "workspace", drain_timeout_s=0)
    async with served_sandbox(settings) as (_, client):
        spec = ToolCallSpec(toolset="filesystem", tool="read_text_file", arguments='{"path": "/workspace/none"}')
        assert (await client.call_tool(spec, timeout_s=30)).outcome == "tool_error"
    [span] = [span for span in spans.get_finished_spans() if span.name == "execute_tool read_text_file"]
    assert span.attributes is not None
    assert span.attributes[semconv.ERROR_TYPE] == "tool_error"


def test_without_a_collector_trace_ids_travel_and_nothing_is_recorded() -> None:
    script = """
from opentelemetry import propagate, trace
from services.shared.chassis.telemetry import configure_tracing, exemplar, tracer
configure_tracing("test", None)
with tracer.start_as_current_span("a") as span:
    carrier = {}
    propagate.inject(carrier)
    assert not span.is_recording() and exemplar() is None
with tracer.start_as_current_span("b", context=propagate.extract(carrier)) as span:
    print(carrier["traceparent"], f"{span.get_span_context().trace_id:032x}")
"""
    done = subprocess.run([sys.executable, "-c", script], cwd=REPOSITORY, capture_output=True, text=True, check=True, timeout=60)
    header, trace_id = done.stdout.split()
    assert re.fullmatch(f"00-{trace_id}-[0-9a-f]{{16}}-0[02]", header), "the flag `sampled` is not set"
    assert int(trace_id, 16)
