"""What there is to know about a call when it arrives: who asks, under which trace, for which version of which tool."""

from __future__ import annotations

import uuid
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

from opentelemetry import trace

from services.sandbox.drivers.driver import Capabilities
from services.sandbox.toolsets import Toolset
from services.sandbox.trajectory.records import Asked, tool_digest
from services.sandbox.trajectory.redacted import property_names

# Versions of tools that are remembered; a sandbox has far fewer.
MAX_REMEMBERED = 4096
MAX_SECRETS = 32


class CallLike(Protocol):
    """What callers say."""

    @property
    def toolset(self) -> str: ...
    @property
    def tool(self) -> str: ...
    @property
    def arguments(self) -> bytes: ...
    @property
    def session_id(self) -> str: ...
    @property
    def call_id(self) -> str: ...
    @property
    def tenant(self) -> str: ...


@dataclass(frozen=True)
class _Tool:
    toolset_digest: str = ""
    digest: str = ""
    known_keys: frozenset[str] = frozenset()


class Asking:
    """Puts it together, and remembers what would be dear to find out anew for every call."""

    def __init__(self) -> None:
        self._tools: dict[tuple[str, str], _Tool] = {}
        self._secrets: dict[str, dict[bytes, None]] = {}

    def asked(self, call: CallLike, toolset: Toolset | None, capabilities: Capabilities) -> Asked:
        """The facts of `call`; without a `toolset` nobody knows the one that it names."""
        call_id = call.call_id or uuid.uuid4().hex
        tool = self._tool(toolset, call.tool) if toolset else _Tool()
        return Asked(
            toolset=call.toolset,
            tool=call.tool,
            arguments=call.arguments,
            call_id=call_id,
            # A call without a session is a trajectory of its own.
            trajectory_id=call.session_id or call_id,
            tenant=call.tenant,
            trace_id=_trace_id(),
            toolset_digest=tool.toolset_digest,
            tool_digest=tool.digest,
            known_keys=tool.known_keys,
            driver=capabilities.driver,
            enforced=capabilities.enforced,
            not_enforced=capabilities.not_enforced,
            secrets=self._values(toolset) if toolset else (),
        )

    def _tool(self, toolset: Toolset, name: str) -> _Tool:
        key = toolset.version, name
        if key not in self._tools:
            tool = next((tool for tool in toolset.tools if tool.name == name), None)
            if tool is None:
                return _Tool(toolset.digest)
            if len(self._tools) >= MAX_REMEMBERED:
                self._tools.clear()
            self._tools[key] = _Tool(toolset.digest, tool_digest(tool), property_names(tool.parameters))
        return self._tools[key]

    def _values(self, toolset: Toolset) -> tuple[bytes, ...]:
        """The secrets of a toolset, the last few of each: a server that runs on may still hold one that was replaced."""
        seen = self._secrets.setdefault(toolset.name, {})
        for secret in toolset.secrets:
            with suppress(OSError, ValueError):
                value = secret.read()
                seen.pop(value, None)
                seen[value] = None
        while len(seen) > MAX_SECRETS:
            del seen[next(iter(seen))]
        return tuple(seen)


def _trace_id() -> str:
    context = trace.get_current_span().get_span_context()
    return f"{context.trace_id:032x}" if context.is_valid else ""
