"""The sandbox's client as the conformance suite wants it: lists the tools at a URL and calls them.

What to call with which arguments comes from the suite, for the scenarios that have something to say.
"""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

from mcp import Client, MCPError
from mcp_types import ElicitResult
from pydantic import ValidationError

from services.sandbox.drivers.remote import BoundedHttp
from services.sandbox.errors import SandboxError
from services.sandbox.process import McpServer
from services.sandbox.toolsets import Toolset

# These want somebody who answers questions. The sandbox has nobody, and says so to servers; its transport has to carry them.
QUESTIONS = {"sep-2322-client-request-state", "elicitation-sep1034-client-defaults"}
# What a schema's required property gets where the suite does not say.
SAMPLES = {"string": "text", "number": 5, "integer": 5, "boolean": True, "array": [], "object": {}}


async def play(url: str, scenario: str, context: str) -> None:
    """The client's part in one scenario; `context` is the suite's JSON, or empty."""
    if scenario in QUESTIONS:
        await answer_all(url)
    else:
        await call_all(url, json.loads(context or "{}"))


async def call_all(url: str, context: dict) -> None:
    """As the sandbox does."""
    server = McpServer(Toolset(name="conformance", directory=Path(), url=url), driver=None, workspace=Path(), verify=False)
    server.start()
    try:
        await server.ready()
        asked = [(call["name"], call.get("arguments", {})) for call in context.get("toolCalls", [])]
        for name, arguments in asked or [(tool.tool.name, sample(tool.tool.parameters)) for tool in server.listed]:
            try:
                await server.call(name, arguments)
            except SandboxError as error:
                print(name, error.message)
    finally:
        server.kill()
        await server.gone()


async def answer_all(url: str) -> None:
    """The SDK's client over the sandbox's transport, with every question accepted at its defaults."""

    async def accept(context: object, params: object) -> ElicitResult:
        properties = getattr(params, "requested_schema", {}).get("properties", {})
        return ElicitResult(action="accept", content={n: p["default"] for n, p in properties.items() if "default" in p})

    transport = BoundedHttp(url, headers={}, frame_bytes=1024 * 1024, over=asyncio.Event())
    async with Client(transport.connect(), mode="auto", cache=None, elicitation_callback=accept) as client:
        for tool in (await client.list_tools()).tools:
            try:
                await client.call_tool(tool.name, sample(tool.input_schema))
            except (MCPError, ValidationError) as error:
                # Some of the suite's answers are errors, and one lacks what this era's schema demands.
                print(tool.name, error)


def sample(schema: dict) -> dict:
    properties = schema.get("properties", {})
    return {name: SAMPLES[properties[name].get("type", "string")] for name in schema.get("required", [])}
