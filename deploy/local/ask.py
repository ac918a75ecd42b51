"""A small agent: the official `openai` SDK, our base URL, and the sandbox's tools. It loops until the model answers."""

from __future__ import annotations

import json
import time
from typing import Any

from openai import APIError, AsyncOpenAI, AuthenticationError, PermissionDeniedError

from deploy.local.faults import Fault
from deploy.local.plan import LocalSettings
from deploy.local.progress import Progress
from services.shared.clients.sandbox import SandboxClient
from services.shared.contracts.errors import AgentFluxError
from services.shared.contracts.execution import ToolCallSpec

TOOLSET = "filesystem"
MAX_STEPS = 8
MAX_TOKENS = 256
CALL_TIMEOUT_S = 30.0


async def ask(settings: LocalSettings, progress: Progress, question: str, *, max_steps: int = MAX_STEPS) -> list[str]:
    """Prints every step of the way from the question to the model's answer; returns what the sandbox refused, and why.

    Raises:
        Fault: the deployment is not running, or a request failed.
    """
    key = settings.api_key.get_secret_value() if settings.api_key else "any"
    client = AsyncOpenAI(base_url=f"http://127.0.0.1:{settings.port('gateway')}/v1", api_key=key, max_retries=1)
    sandbox = SandboxClient(f"127.0.0.1:{settings.port('sandbox')}")
    refused: list[str] = []
    try:
        tools: list[Any] = [tool.openai() for tool in await sandbox.list_tools(TOOLSET)]
        messages: list[Any] = [{"role": "user", "content": question}]
        progress.show(f"question   {question}")
        for step in range(max_steps):
            started = time.monotonic()
            with progress.busy("thinking"):
                raw = await client.chat.completions.with_raw_response.create(
                    model=settings.base_model, messages=messages, tools=tools, max_tokens=MAX_TOKENS
                )
            reply = raw.parse()
            message = reply.choices[0].message
            if vote := raw.headers.get("x-agentflux-selection"):
                progress.show(f"\nstep {step + 1}     {_told(json.loads(vote))}  ({time.monotonic() - started:.1f} s)")
            if not message.tool_calls:
                progress.show(f"answer     {message.content}")
                return refused
            if reply.choices[0].finish_reason == "length":
                progress.show(f"stopped    the model did not finish its call within {MAX_TOKENS} tokens")
                return refused
            messages.append(message.model_dump(exclude_none=True))
            for call in message.tool_calls:
                try:
                    result = await _run(sandbox, progress, call)
                except AgentFluxError as error:
                    # What the tool cannot do is the model's to know; it may do something else.
                    progress.show(f"refused    {error.message}")
                    refused.append(error.message)
                    result = f"Error: {error.message}"
                messages.append({"role": "tool", "tool_call_id": call.id, "content": result})
        progress.show(f"\nstopped after {max_steps} tool calls (an agent sets its own limit)" if max_steps > 1 else "")
        return refused
    except (AuthenticationError, PermissionDeniedError) as error:
        raise Fault(f"the gateway refused: {error}", "set AGENTFLUX_API_KEY to a key that it knows") from error
    except APIError as error:
        next_step = f"read {settings.run_dir}/logs, or run `make up` if nothing is running"
        raise Fault(f"the gateway refused or failed: {error}", next_step) from error
    except AgentFluxError as error:
        raise Fault(error.message, "run `make up` if nothing is running") from error
    finally:
        await sandbox.aclose()
        await client.close()


async def _run(sandbox: SandboxClient, progress: Progress, call: Any) -> str:
    progress.show(f"call       {call.function.name}({call.function.arguments})")
    spec = ToolCallSpec(
        toolset=TOOLSET, tool=call.function.name, arguments=call.function.arguments, session_id="ask", call_id=call.id
    )
    result = await sandbox.call_tool(spec, timeout_s=CALL_TIMEOUT_S)
    text: str = result.text
    shown = text if len(text) <= 1200 else f"{text[:1200]} … ({len(text)} characters)"
    progress.show(f"{'result' if result.outcome == 'ok' else 'tool error':10} {shown}")
    return text


def _told(vote: dict[str, Any]) -> str:
    winner = vote["tool"] or "answer in text"
    runners = ", ".join(f"{label} {probability:.2f}" for label, probability in vote["probabilities"].items())
    return f"{winner}  margin {vote['margin']:.2f}  [{runners}]  by {vote['strategy']} vote of {vote['adapter']}"
