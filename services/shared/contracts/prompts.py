"""The one renderer of prompts, for trainer and services alike.

Both roles see one identical prefix (system, tools, conversation, generation prompt) and differ only after it:

    <prefix><tool_call>\\n{"name": "X", "arguments": {...}
                                  └ the selector decides X   └ the argument writer goes on from here

So whatever one role has computed for the prefix serves the other one too.

Two profiles differ in how the prefix shows the tools: `full` gives their schemas, as the base model's template writes them;
`compact` gives their names only, for adapters that have learned their toolset by heart. The grammar holds the schema anyway.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment
from tokenizers import Tokenizer

from services.shared.contracts.adapters import PromptProfile
from services.shared.contracts.errors import InvalidRequest
from services.shared.contracts.selection import ANSWER_LABEL
from services.shared.contracts.tools import JsonObject, Tool, canonical_json

_CALL_OPENING = '<tool_call>\n{"name": "'
_ARGUMENTS_OPENING = '", "arguments": '
_COMPACT_TOOLS = "Functions: "
_ANSWER_DESCRIPTION = "Answer the user in plain words: no other function fits, or the results so far are enough for an answer."


@dataclass(frozen=True)
class Prefix:
    """A rendered prefix: `head` are the token ids up to its last special token, `rest` is the text after that.

    Text on the two sides of a special token is tokenised apart, so only `rest` has to be joined with what follows.
    """

    head: list[int]
    rest: str


@dataclass(frozen=True)
class LabelTokens:
    """One label as the model would write it: token ids after `Prefix.head`, up to the token that closes the name."""

    label: str
    ids: list[int]


class PromptRenderer:
    """Renders conversations with the base model's own chat template and tokenizer."""

    def __init__(self, tokenizer: Tokenizer, template: str, special_tokens: dict[str, str]) -> None:
        self._tokenizer = tokenizer
        environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"])
        environment.filters["tojson"] = _tojson
        environment.globals["raise_exception"] = _refuse
        self._template = environment.from_string(template)
        self._variables = special_tokens
        self._special = sorted(
            (token.content for token in tokenizer.get_added_tokens_decoder().values() if token.special), key=len, reverse=True
        )
        # Trainer and services compare this: an adapter learned one rendering and is of no use under another.
        self.template_hash = hashlib.sha256(
            "\0".join([template, _CALL_OPENING, _ARGUMENTS_OPENING, ANSWER_LABEL, _ANSWER_DESCRIPTION, _COMPACT_TOOLS]).encode()
        ).hexdigest()

    @classmethod
    def load(cls, model_dir: Path) -> PromptRenderer:
        """Reads tokenizer.json, chat_template.jinja and tokenizer_config.json from a model folder.

        Raises:
            FileNotFoundError: naming the missing file.
        """
        config = json.loads((model_dir / "tokenizer_config.json").read_text())
        template_file = model_dir / "chat_template.jinja"
        template = template_file.read_text() if template_file.exists() else config["chat_template"]
        tokens = {name: _token_text(config[name]) for name in ("bos_token", "eos_token") if config.get(name)}
        return cls(Tokenizer.from_file(str(model_dir / "tokenizer.json")), template, tokens)

    def prefix(self, messages: list[JsonObject], tools: Sequence[Tool], profile: PromptProfile = "full") -> Prefix:
        """The prefix of both roles: the tools plus the answer label, then the conversation.

        `full` shows the tools in the order given; `compact` sorts their names, so that a prompt is the one of the training
        whatever order a client has.
        """
        label = answer_label(tools)
        if profile == "compact":
            names = ", ".join([*sorted(tool.name for tool in tools), label])
            text = self._render(_with_system(messages, _COMPACT_TOOLS + names), [])
        else:
            shown = [_shown(tool) for tool in tools]
            shown.append(_shown(Tool(name=label, description=_ANSWER_DESCRIPTION)))
            text = self._render(messages, shown)
        cut = max((text.rfind(token) + len(token) for token in self._special if token in text), default=0)
        return Prefix(head=self._encode(text[:cut]), rest=text[cut:])

    def _render(self, messages: list[JsonObject], tools: list[JsonObject]) -> str:
        try:
            readable = [_readable(message) for message in messages]
            # Templates ask whether there are tools at all; an empty list is no tools to all of them, and None to the rest.
            return self._template.render(messages=readable, tools=tools or None, add_generation_prompt=True, **self._variables)
        except (TemplateError, TypeError, RecursionError) as error:
            # Templates are written for a model, not for every conversation that JSON can hold.
            raise InvalidRequest(
                f"the model's chat template cannot render this conversation: {error}", param="messages"
            ) from error

    def label_tokens(self, prefix: Prefix, labels: Sequence[str]) -> list[LabelTokens]:
        """How each label is spelled in tokens right after the prefix.

        Each spelling ends with the token that holds the name's closing quote, so none is the beginning of another one,
        even where the names are (`read_file`, `read_file_v2`).
        """
        texts = [prefix.rest + _CALL_OPENING + _escaped(label) + _ARGUMENTS_OPENING for label in labels]
        encodings = self._tokenizer.encode_batch(texts, add_special_tokens=False)
        spelled = []
        for label, text, encoding in zip(labels, texts, encodings, strict=True):
            quote = len(text) - len(_ARGUMENTS_OPENING)
            last = next(i for i, (_, end) in enumerate(encoding.offsets) if end > quote)
            spelled.append(LabelTokens(label, encoding.ids[: last + 1]))
        return spelled

    def name_prompt(self, prefix: Prefix) -> list[int]:
        """Token ids up to the opening quote of the name: what a sampling vote continues."""
        return prefix.head + self._encode(prefix.rest + _CALL_OPENING)

    def arguments_prompt(self, prefix: Prefix, tool: str) -> list[int]:
        """Token ids up to where the arguments object of `tool` begins."""
        return prefix.head + self._encode(prefix.rest + _CALL_OPENING + _escaped(tool) + _ARGUMENTS_OPENING)

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer.encode(text, add_special_tokens=False).ids
        return ids


def answer_label(tools: Sequence[Tool]) -> str:
    """The name that stands for answering in text; a tool of that name gets precedence and the label an underscore."""
    label = ANSWER_LABEL
    names = {tool.name for tool in tools}
    while label in names:
        label += "_"
    return label


def _shown(tool: Tool) -> JsonObject:
    # Sorted keys inside the schema, so that equal toolsets give equal prompts and the engine's prefix cache is hit.
    shown = tool.openai()
    shown["function"]["parameters"] = json.loads(canonical_json(tool.parameters))
    return shown


def _readable(message: JsonObject) -> JsonObject:
    # Published templates print the arguments of a call as JSON, so they have to get an object and not its text.
    calls = message.get("tool_calls")
    if not calls:
        return message
    functions = [{**call["function"], "arguments": json.loads(call["function"]["arguments"])} for call in calls]
    return {**message, "tool_calls": [{**call, "function": function} for call, function in zip(calls, functions, strict=True)]}


def _with_system(messages: list[JsonObject], line: str) -> list[JsonObject]:
    if messages and messages[0].get("role") == "system":
        said = messages[0].get("content") or ""
        return [{**messages[0], "content": f"{said}\n\n{line}" if said else line}, *messages[1:]]
    return [{"role": "system", "content": line}, *messages]


def _escaped(name: str) -> str:
    return json.dumps(name, ensure_ascii=False)[1:-1]


def _tojson(value: object, indent: int | None = None) -> str:
    # Jinja's own filter escapes for HTML, which chat templates do not expect.
    return json.dumps(value, ensure_ascii=False, indent=indent)


def _refuse(message: str) -> Any:
    raise InvalidRequest(f"the model's chat template refuses this conversation: {message}", param="messages")


def _token_text(token: str | dict[str, str]) -> str:
    return token if isinstance(token, str) else token["content"]
