"""Whether the arguments of a call are what its tool's schema allows."""

from __future__ import annotations

from typing import Any

import jsonschema_rs

from services.sandbox.errors import ArgumentsRejected, ToolsetNotReady
from services.sandbox.frames import strict_json
from services.shared.contracts.tools import JsonObject, Tool

# Enough for a model to repair its call; a long list would only be paid for in tokens.
MAX_VIOLATIONS = 8


class ArgumentChecker:
    """The compiled schema of one tool. References to the network are not followed."""

    def __init__(self, toolset: str, tool: Tool) -> None:
        self._name = f"{toolset}.{tool.name}"
        try:
            self._validator = jsonschema_rs.validator_for(tool.parameters, offline=True)
        except (ValueError, jsonschema_rs.ReferencingError) as error:
            raise ToolsetNotReady(
                f"the schema of {self._name} in tools.json cannot be used: {_short(error)}; "
                f"pin the toolset again with: python -m services.sandbox.pin {toolset}"
            ) from None

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
        violations = []
        for found in self._validator.iter_errors(arguments):
            path = ".".join(["arguments_json", *(str(part) for part in found.instance_path)])
            violations.append((path, _short(found.message)))
            if len(violations) == MAX_VIOLATIONS:
                break
        if violations:
            raise self._rejected(violations)
        return arguments

    def _rejected(self, violations: list[tuple[str, str]]) -> ArgumentsRejected:
        said = "; ".join(f"{path}: {why}" for path, why in violations)
        return ArgumentsRejected(f"the arguments of {self._name} are not valid: {said}", violations=violations)


def _kind(value: Any) -> str:
    names: dict[type, str] = {list: "an array", str: "a string", bool: "a boolean", type(None): "null"}
    return names.get(type(value), "a number")


def _short(value: object) -> str:
    text = str(value)
    return text if len(text) <= 300 else f"{text[:300]}…"
