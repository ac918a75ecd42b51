"""Tools as every service sees them: a name, a sentence, and the JSON Schema of the parameters."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from pydantic import BaseModel, Field

JsonObject = dict[str, Any]


class Tool(BaseModel):
    """One tool of one MCP server, or one function of an OpenAI request."""

    name: str = Field(min_length=1, max_length=128)
    description: str = ""
    parameters: JsonObject = Field(default_factory=lambda: {"type": "object", "properties": {}})

    @property
    def has_parameters(self) -> bool:
        """False when `{}` is the only call worth writing: no property is named, demanded or welcomed."""
        schema = self.parameters
        says_more = {"required", "anyOf", "allOf", "oneOf", "$ref", "patternProperties", "minProperties", "if"} & schema.keys()
        return bool(schema.get("properties") or says_more or schema.get("additionalProperties"))

    def openai(self) -> JsonObject:
        """The tool as an entry of `tools` in an OpenAI chat request."""
        return {
            "type": "function",
            "function": {"name": self.name, "description": self.description, "parameters": self.parameters},
        }


class ToolsetRef(BaseModel):
    """The registered toolset that a request's tools belong to: its `digest` (see `tools_digest`) and all its tools by name.

    A request may bring fewer tools than the toolset has; adapters that know a toolset by heart are shown all of its names.
    """

    name: str
    digest: str
    tools: list[str]


_CANONICAL = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def canonical_json(value: object) -> str:
    """One text per value: sorted keys, no spaces, UTF-8 kept. In the manner of RFC 8785, but numbers keep Python's form.

    Raises:
        ValueError: for NaN and infinities, which JSON does not have.
    """
    return _CANONICAL.encode(value)


def sha256_of(value: object) -> str:
    """SHA-256 over the canonical JSON of `value`, in hex (64 characters)."""
    return hashlib.sha256(canonical_json(value).encode("utf-8", "surrogatepass")).hexdigest()


def tools_digest(tools: list[Tool]) -> str:
    """What makes two tool lists the same toolset: names, descriptions and parameters, whatever their order."""
    return sha256_of(sorted((tool.openai() for tool in tools), key=lambda tool: tool["function"]["name"]))
