"""What a registered function is: source and schema, named by the hash of both, so that nobody changes what was approved."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from services.sandbox.errors import ArgumentsRejected
from services.sandbox.frames import strict_json
from services.sandbox.functions.lint import advice, function_in, parsed
from services.sandbox.pinning import PinnedTool
from services.sandbox.schemas import compiled
from services.sandbox.suspicious import suspicious
from services.shared.contracts.tools import JsonObject, Tool, sha256_of

PREFIX = "fn-"
MAX_SOURCE = 64 * 1024
MAX_SCHEMA = 32 * 1024
MAX_DESCRIPTION = 4096

_NAME = re.compile(r"[a-z][a-z0-9_]{0,38}[a-z0-9]")


@dataclass(frozen=True)
class Function:
    """One version of a function. `parameters` is the JSON Schema of its arguments."""

    name: str
    description: str
    parameters: JsonObject
    source: str

    @cached_property
    def digest(self) -> str:
        """SHA-256 over all of it."""
        return sha256_of(vars_of(self))

    @property
    def toolset(self) -> str:
        """The toolset that it is called through, such as fn-chart-0123456789abcdef."""
        return f"{PREFIX}{self.name}-{self.digest[:16]}"

    @property
    def tool(self) -> Tool:
        """As models see it."""
        return Tool(name=self.name, description=self.description, parameters=self.parameters)


def vars_of(function: Function) -> dict[str, Any]:
    """What the digest is made of."""
    return {key: getattr(function, key) for key in ("name", "description", "parameters", "source")}


def checked(name: str, description: str, parameters_json: bytes, source: str) -> tuple[Function, list[str]]:
    """The function, and advice about it.

    Raises:
        ArgumentsRejected: it can never work; names each field that is wrong.
    """
    wrong: list[tuple[str, str]] = []
    if not _NAME.fullmatch(name):
        wrong.append(("name", f"must be 2 to 40 of a-z, 0-9 and _, beginning with a letter, not {name[:80]!r}"))
    if not description.strip() or len(description) > MAX_DESCRIPTION:
        wrong.append(("description", f"must have 1 to {MAX_DESCRIPTION} characters: models choose the tool by it"))
    parameters = _schema(parameters_json, wrong)
    found: list[str] = []
    if len(source.encode("utf-8", "replace")) > MAX_SOURCE:
        wrong.append(("source", f"has {len(source)} characters; at most {MAX_SOURCE} bytes are possible"))
    elif not wrong:
        try:
            tree = parsed(source)
            function_in(tree, name)
            found = advice(tree, name, parameters)
        except ValueError as error:
            wrong.append(("source", str(error)))
    if wrong:
        said = "; ".join(f"{field}: {why}" for field, why in wrong)
        raise ArgumentsRejected(f"the function cannot be registered: {said}", violations=wrong)
    function = Function(name, description, parameters, source)
    return function, [*suspicious(PinnedTool(function.tool)), *found]


def _schema(text: bytes, wrong: list[tuple[str, str]]) -> JsonObject:
    empty: JsonObject = {"type": "object", "properties": {}, "additionalProperties": False}
    if not text:
        return empty
    try:
        if len(text) > MAX_SCHEMA:
            raise ValueError(f"has {len(text)} bytes; at most {MAX_SCHEMA} are possible")
        schema = strict_json(text)
        if not isinstance(schema, dict) or schema.get("type") != "object":
            raise ValueError('must be a JSON Schema with "type": "object"')
        compiled(schema)
    except ValueError as error:
        wrong.append(("parameters_json", str(error)[:500]))
        return empty
    return schema
