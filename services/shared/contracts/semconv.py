"""What spans and their attributes are called: OpenTelemetry's conventions for generative AI and MCP, in one place.

Source: open-telemetry/semantic-conventions-genai, docs/gen-ai/*.md and docs/mcp (Development). They moved there in 2026, and
the constants in the package opentelemetry-semantic-conventions are deprecated. Content (messages, arguments, results) is
opt-in there, and is never recorded here. What the conventions have no name for begins with `agentflux.`.
"""

from __future__ import annotations

OPERATION = "gen_ai.operation.name"
PROVIDER = "gen_ai.provider.name"
REQUEST_MODEL = "gen_ai.request.model"
REQUEST_STREAM = "gen_ai.request.stream"
RESPONSE_ID = "gen_ai.response.id"
INPUT_TOKENS = "gen_ai.usage.input_tokens"
OUTPUT_TOKENS = "gen_ai.usage.output_tokens"
TOOL_NAME = "gen_ai.tool.name"
TOOL_CALL_ID = "gen_ai.tool.call.id"
ERROR_TYPE = "error.type"
HTTP_ROUTE = "http.route"
HTTP_STATUS = "http.response.status_code"

# Values of OPERATION.
CHAT = "chat"
TEXT_COMPLETION = "text_completion"
EMBEDDINGS = "embeddings"
EXECUTE_TOOL = "execute_tool"

# A value of PROVIDER; the conventions leave engines that one runs oneself to their own names.
VLLM = "vllm"

# A value of ERROR_TYPE: the tool itself said that the call failed (CallToolResult.isError), which is no failure of the call.
TOOL_ERROR = "tool_error"

TOOLSET = "agentflux.toolset"
ADAPTER = "agentflux.adapter"
RELEASE = "agentflux.release"
OUTCOME = "agentflux.outcome"
STRATEGY = "agentflux.vote.strategy"
MARGIN = "agentflux.vote.margin"
ATTEMPTS = "agentflux.arguments.attempts"
COLD_START = "agentflux.sandbox.cold_start"


def span_name(operation: str, subject: str) -> str:
    """`chat base`, `execute_tool read_file`: the operation and what it is about."""
    return f"{operation} {subject}"
