"""Why a call could not be run: one small class per reason, each with a message that ends in the next step.

    SandboxError                  reason
    ├── UnknownToolset            TOOLSET_UNKNOWN
    ├── UnknownTool               TOOL_UNKNOWN
    ├── ArgumentsRejected         ARGUMENTS_INVALID
    ├── ToolsetNotReady           TOOLSET_NOT_READY
    ├── ToolsDiffer               TOOLS_DIFFER
    ├── OutputTooLarge            OUTPUT_TOO_LARGE
    ├── SandboxBusy               SANDBOX_BUSY
    ├── CallTimedOut              CALL_TIMED_OUT
    ├── ServerDied                SERVER_DIED
    ├── CrashLoop                 CRASH_LOOP
    ├── ServerMisbehaved          SERVER_MISBEHAVED
    ├── SandboxUnusable           SANDBOX_UNUSABLE
    ├── LogUnavailable            LOG_UNAVAILABLE
    └── TooManyFunctions          FUNCTION_LIMIT

A tool that reports a failure of its own is not among them: that is a result.
"""

from __future__ import annotations

from services.shared.contracts.errors import AgentFluxError


class SandboxError(AgentFluxError):
    """A call that gave no result; `reason` is stable, `message` is for people."""

    reason = "INTERNAL"


class UnknownToolset(SandboxError):
    """No directory of that name below `toolsets_dir`."""

    reason = "TOOLSET_UNKNOWN"


class UnknownTool(SandboxError):
    """The toolset's tools.json has no such tool."""

    reason = "TOOL_UNKNOWN"


class ArgumentsRejected(SandboxError):
    """The arguments are no JSON object, or not one that the tool's schema allows.

    `violations` are pairs of a path, such as `arguments_json.path`, and what is wrong there.
    """

    reason = "ARGUMENTS_INVALID"

    def __init__(self, message: str, *, violations: list[tuple[str, str]]) -> None:
        super().__init__(message)
        self.violations = violations


class ToolsetNotReady(SandboxError):
    """Its server cannot be started yet: a file or a program is missing."""

    reason = "TOOLSET_NOT_READY"


class ToolsDiffer(SandboxError):
    """The live server lists other tools than tools.json pins."""

    reason = "TOOLS_DIFFER"


class OutputTooLarge(SandboxError):
    """The server sent a message that is larger than any result may be."""

    reason = "OUTPUT_TOO_LARGE"


class SandboxBusy(SandboxError):
    """Every server is at work, and the call could not or cannot wait for one. It was not started."""

    reason = "SANDBOX_BUSY"
    retry_after = 1.0


class CallTimedOut(SandboxError):
    """The server did not answer in time and has been killed."""

    reason = "CALL_TIMED_OUT"


class ServerDied(SandboxError):
    """The server exited, at start or in the middle of a call."""

    reason = "SERVER_DIED"
    retry_after = 1.0


class CrashLoop(SandboxError):
    """The toolset's servers keep dying, so none is started for `retry_after` seconds."""

    reason = "CRASH_LOOP"

    def __init__(self, message: str, *, retry_after: float) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class ServerMisbehaved(SandboxError):
    """The server broke the protocol: bytes that are no JSON, an answer that is no MCP result."""

    reason = "SERVER_MISBEHAVED"
    retry_after = 1.0


class SandboxUnusable(SandboxError):
    """This machine does not let the driver isolate anything, so nothing is run."""

    reason = "SANDBOX_UNUSABLE"
    retry_after = 10.0


class LogUnavailable(SandboxError):
    """The call cannot be logged, and the operator wants no call that is not."""

    reason = "LOG_UNAVAILABLE"
    retry_after = 10.0


class TooManyFunctions(SandboxError):
    """A tenant has as many registered functions as is possible."""

    reason = "FUNCTION_LIMIT"
