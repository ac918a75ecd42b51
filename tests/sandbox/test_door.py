"""The gRPC door: statuses with their details, health, reflection, deadlines."""

from __future__ import annotations

import json
from pathlib import Path

import grpc
import pytest
import structlog
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_status import rpc_status

from services.sandbox.app import Sandbox, running
from services.sandbox.settings import SandboxSettings
from services.shared.clients.sandbox import SERVICE, SandboxClient
from services.shared.contracts.errors import InvalidRequest, Unavailable
from services.shared.contracts.execution import ToolCallSpec
from services.shared.pb.toolrunner.v1 import toolrunner_pb2 as pb
from services.shared.pb.toolrunner.v1 import toolrunner_pb2_grpc as pb_grpc
from tests.sandbox.conftest import served, write_toolset

pytestmark = [pytest.mark.anyio, pytest.mark.real]


@pytest.fixture
def channel(service: tuple[Sandbox, SandboxClient]) -> grpc.aio.Channel:
    return service[1]._channel()


async def failure(
    channel: grpc.aio.Channel, **fields: object
) -> tuple[grpc.StatusCode, error_details_pb2.ErrorInfo, dict[str, str]]:
    """Code, ErrorInfo and field violations of a CallTool that must fail."""
    request = pb.CallToolRequest(**{"toolset": "well", "tool": "echo", **fields})
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pb_grpc.ToolRunnerServiceStub(channel).CallTool(request, timeout=10)
    info, bad = error_details_pb2.ErrorInfo(), error_details_pb2.BadRequest()
    for detail in rpc_status.from_call(caught.value).details:
        detail.Unpack(info)
        detail.Unpack(bad)
    return caught.value.code(), info, {violation.field: violation.description for violation in bad.field_violations}


async def test_every_error_is_a_status_with_a_reason(channel: grpc.aio.Channel) -> None:
    brief = Duration(nanos=300_000_000)
    cases: list[tuple[dict[str, object], grpc.StatusCode, str]] = [
        ({"toolset": "nope"}, grpc.StatusCode.NOT_FOUND, "TOOLSET_UNKNOWN"),
        ({"tool": "nope"}, grpc.StatusCode.NOT_FOUND, "TOOL_UNKNOWN"),
        ({"arguments_json": b"{"}, grpc.StatusCode.INVALID_ARGUMENT, "ARGUMENTS_INVALID"),
        ({"toolset": "drift"}, grpc.StatusCode.FAILED_PRECONDITION, "TOOLS_DIFFER"),
        ({"tool": "exit"}, grpc.StatusCode.UNAVAILABLE, "SERVER_DIED"),
        ({"tool": "nan"}, grpc.StatusCode.UNAVAILABLE, "SERVER_MISBEHAVED"),
        ({"tool": "huge_result"}, grpc.StatusCode.RESOURCE_EXHAUSTED, "OUTPUT_TOO_LARGE"),
        ({"tool": "hang", "max_wall": brief}, grpc.StatusCode.DEADLINE_EXCEEDED, "CALL_TIMED_OUT"),
    ]
    for fields, code, reason in cases:
        found, info, _ = await failure(channel, **fields)
        assert (found, info.reason, info.domain) == (code, reason, "toolrunner")


async def test_wrong_arguments_are_named_field_by_field(channel: grpc.aio.Channel) -> None:
    _, _, violations = await failure(channel, arguments_json=json.dumps({"text": 5}).encode())
    assert violations == {"arguments_json.text": '5 is not of type "string"'}


async def test_a_request_that_is_too_large_is_refused_before_it_is_read(channel: grpc.aio.Channel) -> None:
    request = pb.CallToolRequest(toolset="well", tool="echo", arguments_json=b" " * (9 * 1024 * 1024))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await pb_grpc.ToolRunnerServiceStub(channel).CallTool(request, timeout=10)
    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_call_without_a_deadline_gets_the_toolsets(channel: grpc.aio.Channel) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match=r"did not end within 1 s"):
        await pb_grpc.ToolRunnerServiceStub(channel).CallTool(pb.CallToolRequest(toolset="brief", tool="hang"))


async def test_health_and_reflection_answer(channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for name in ("", SERVICE):
        reply = await health.Check(health_pb2.HealthCheckRequest(service=name), timeout=5)
        assert reply.status == health_pb2.HealthCheckResponse.SERVING
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    async for answer in reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([asked]), timeout=5):
        assert SERVICE in {item.name for item in answer.list_services_response.service}
        break


async def test_tools_are_listed_without_starting_anything(client: SandboxClient) -> None:
    tools = await client.list_tools("exit")
    assert "echo" in {tool.name for tool in tools}
    assert {info.name: info.ready for info in await client.list_toolsets()}["well"]


async def test_without_bubblewrap_the_service_answers_but_does_not_serve(settings: SandboxSettings, tmp_path: Path) -> None:
    broken = settings.model_copy(update={"bwrap": tmp_path / "nothing"})
    async with served(broken) as (_, client):
        assert "bubblewrap is not installed" in (await client.ready() or "")
        with pytest.raises(Unavailable, match=r"tools cannot be run: bubblewrap is not installed .* set AGENTFLUX_SANDBOX_BWRAP"):
            await client.call_tool(ToolCallSpec(toolset="well", tool="echo", arguments="{}"), timeout_s=5)
        [reason] = {info.reason for info in await client.list_toolsets()}
        assert "bubblewrap is not installed" in reason


async def test_a_missing_program_or_file_is_named_with_the_next_step(settings: SandboxSettings, tmp_path: Path) -> None:
    write_toolset(tmp_path / "toolsets" / "nodeless", command=["node", "x.js"])
    write_toolset(tmp_path / "toolsets" / "bare", command=["/bin/sh"], requires=["node_modules"], setup="run `make up`")
    other = settings.model_copy(update={"toolsets_dir": tmp_path / "toolsets", "node": tmp_path / "node"})
    async with served(other) as (_, client):
        with pytest.raises(InvalidRequest, match=r"Node\.js is not installed"):
            await client.call_tool(ToolCallSpec(toolset="nodeless", tool="echo", arguments="{}"), timeout_s=5)
        with pytest.raises(InvalidRequest, match=r"lacks node_modules in .*: run `make up`"):
            await client.call_tool(ToolCallSpec(toolset="bare", tool="echo", arguments="{}"), timeout_s=5)
        assert [info.ready for info in await client.list_toolsets()] == [False, False]


async def test_a_call_that_went_well_is_no_news(service: tuple[Sandbox, SandboxClient]) -> None:
    with structlog.testing.capture_logs() as lines:
        await service[1].call_tool(ToolCallSpec(toolset="well", tool="echo", arguments="{}"), timeout_s=10)
        await service[1].call_tool(ToolCallSpec(toolset="well", tool="run", arguments='{"text": "1 / 0"}'), timeout_s=10)
    said = {line["tool"]: (line["log_level"], line["is_error"]) for line in lines if line["event"] == "tool called"}
    assert said == {"echo": ("debug", False), "run": ("info", True)}


async def test_a_port_that_is_taken_is_named(service: tuple[Sandbox, SandboxClient], settings: SandboxSettings) -> None:
    taken = settings.model_copy(update={"port": service[0].server.port})
    with pytest.raises(Unavailable, match="the port is taken"):
        async with running(taken):
            pass


async def test_nobody_at_the_other_end_is_said_so() -> None:
    lonely = SandboxClient("127.0.0.1:1")
    assert "the sandbox at 127.0.0.1:1 cannot be reached" in (await lonely.ready() or "")
    await lonely.aclose()
