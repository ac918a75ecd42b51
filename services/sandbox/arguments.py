"""Whether the arguments of a call, and the structured result of it, are what the tool's schemas allow."""

from __future__ import annotations

from typing import Any

import orjson

from services.sandbox.errors import ArgumentsRejected, ServerMisbehaved, ToolsetNotReady
from services.sandbox.frames import strict_json
from services.sandbox.schemas import compiled
from services.shared.contracts.tools import JsonObject, Tool

# Enough for a model to repair its call; a long list would only be paid for in tokens.
MAX_VIOLATIONS = 8


class ArgumentChecker:
    """The compiled schema of one tool's arguments."""

    def __init__(self, toolset: str, tool: Tool) -> None:
        self._name = f"{toolset}.{tool.name}"
        self._validator = _compiled(tool.parameters, toolset, f"the schema of {self._name}")

    def check(self, text: bytes) -> JsonObject:
        """The arguments as an object; empty text is `{}`.

        Raises:
            ArgumentsRejected: names each field that is wrong.
        """
        try:
            arguments = strict_json(text) if text.strip() else {}
        except ValueError as error:
            raise self._rejected([("arguments_json", f"not valid JSON: {error}")]) from None
        if not isinstance(arguments, dict):
            raise self._rejected([("arguments_json", f"must be a JSON object, not {_kind(arguments)}")])
        if violations := _violations(self._validator, arguments, "arguments_json"):
            raise self._rejected(violations)
        return arguments

    def _rejected(self, violations: list[tuple[str, str]]) -> ArgumentsRejected:
        said = "; ".join(f"{path}: {why}" for path, why in violations)
        return ArgumentsRejected(f"the arguments of {self._name} are not valid: {said}", violations=violations)


class ResultChecker:
    """The compiled output schema of one tool, as it is pinned: what the server says of its own result proves nothing."""

    def __init__(self, toolset: str, tool: str, schema: JsonObject) -> None:
        self._name = f"{toolset}.{tool}"
        self._validator = _compiled(schema, toolset, f"the output schema of {self._name}")

    def check(self, structured: bytes) -> None:
        """Looks at the structured result as JSON; empty where the server gave none.

        Raises:
            ServerMisbehaved: it is missing, or not what the schema allows; names what is wrong.
        """
        if not structured:
            raise ServerMisbehaved(f"the result of {self._name} lacks structuredContent, which its pinned outputSchema promises")
        if violations := _violations(self._validator, orjson.loads(structured), "structuredContent"):
            said = "; ".join(f"{path}: {why}" for path, why in violations)
            raise ServerMisbehaved(f"the result of {self._name} is not what its pinned outputSchema allows: {said}")


def _compiled(schema: JsonObject, toolset: str, what: str) -> Any:
    try:
        return compiled(schema)
    except ValueError as error:
        raise ToolsetNotReady(
            f"{what} cannot be used: {_short(error)}; pin the toolset again with: python -m services.sandbox.pin {toolset}"
        ) from None


def _violations(validator: Any, value: Any, root: str) -> list[tuple[str, str]]:
    """Where `value` is not what the schema allows, and why; the first few."""
    violations = []
    for found in validator.iter_errors(value):
        path = ".".join([root, *(str(part) for part in found.instance_path)])
        violations.append((_short(path), _short(found.message)))
        if len(violations) == MAX_VIOLATIONS:
            break
    return violations


def _kind(value: Any) -> str:
    names: dict[type, str] = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}…"
