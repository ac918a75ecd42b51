"""What may leave the premises: which requests another model may be asked about, and what happens when it does not answer.

Without a policy nothing leaves. A request leaves only if it was not marked private, its caller is named by the policy, and the
policy is for its toolset; whatever goes wrong outside, the local models go on.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import aclosing, contextmanager
from pathlib import Path
from typing import Protocol

import structlog
import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from services.gateway.events import AnswerChunk, Answered, Outside, Purpose
from services.gateway.wire.requests import CONTINUING, Sender
from services.shared.contracts.engine import Engine
from services.shared.contracts.errors import AgentFluxError, Unavailable, UpstreamError
from services.shared.contracts.selection import Selection, SelectionRequest
from services.shared.contracts.tools import JsonObject
from services.shared.contracts.usage import Usage

log = structlog.get_logger()

ANY = "*"
# In place of a toolset's name: tools that nobody registered, and requests without tools.
OTHER, NO_TOOLS = "other", "none"
# What a selection names in place of an adapter: this and the upstream that decided.
FROM_UPSTREAM = "upstream:"
# What OpenAI's API does not have, and strict servers therefore refuse.
ENGINES_OWN = {*CONTINUING, "top_k"}


class Upstream(BaseModel):
    """An OpenAI-compatible server: `base_url` with its `/v1`, the `model` to ask for, the file that holds the key.

    `timeout_s` bounds a whole reply, and each silence of a streamed one; beyond `max_concurrency` requests the local models
    are asked instead.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    base_url: str = Field(pattern=r"^https?://[^/\s]+")
    model: str = Field(min_length=1)
    key_file: Path | None = None
    timeout_s: float = Field(default=60.0, gt=0)
    max_concurrency: int = Field(default=8, ge=1)


class LowMargin(BaseModel):
    """Selections with a margin `below` this (0..1) are left to `upstream`."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    upstream: str
    below: float = Field(gt=0, le=1)


class Policy(BaseModel):
    """What may leave of the requests of these `callers` (names of API keys, `*`: everybody) with these `toolsets` (`*`: all,
    `other`: tools that nobody registered, `none`: no tools): answers in text, and selections with a low margin."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    toolsets: list[str] = [ANY]
    callers: list[str] = Field(min_length=1)
    answer: str | None = None
    low_margin: LowMargin | None = None


class UpstreamsFile(BaseModel):
    """The settings file: upstreams by name, and policies of which the first that fits counts."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    upstreams: dict[str, Upstream] = {}
    policies: list[Policy] = []


class Model(Protocol):
    """A model elsewhere: a chat completion, whole or in chunks. Both raise AgentFluxErrors."""

    async def chat(self, body: JsonObject) -> JsonObject: ...

    def stream_chat(self, body: JsonObject) -> AsyncGenerator[JsonObject]: ...


class Upstreams:
    """Asks `models` where a policy says so. `count` is told which upstream was asked, for what, and what became of it: `used`,
    `cancelled`, or an error's code."""

    def __init__(self, file: UpstreamsFile, models: Mapping[str, Model], count: Callable[[str, Purpose, str], None]) -> None:
        self._file = file
        self._models = models
        self._count = count
        self._running = dict.fromkeys(models, 0)

    async def second_opinion(
        self, sender: Sender, selection: Selection, request: SelectionRequest
    ) -> tuple[Selection, Outside | None]:
        """`selection`, or that of an upstream where the margin is too low; release and probabilities stay the local ones."""
        policy = self._policy(sender, request.toolset.name if request.toolset else OTHER)
        rule = policy.low_margin if policy else None
        if rule is None or selection.margin >= rule.below:
            return selection, None
        try:
            with self._asking(rule.upstream, "low_margin") as model:
                reply = await model.chat(_question(request))
                tool = _tool_of(reply, request, rule.upstream)
        except AgentFluxError as error:
            return selection, Outside(rule.upstream, "low_margin", error.code)
        usage = selection.usage + Usage.of_reply(reply)
        decided = selection.model_copy(update={"tool": tool, "adapter": f"{FROM_UPSTREAM}{rule.upstream}", "usage": usage})
        return decided, Outside(rule.upstream, "low_margin")

    async def answer(
        self, sender: Sender, toolset: str, body: JsonObject, *, stream: bool, engine: Engine
    ) -> AsyncGenerator[Answered | AnswerChunk | Outside]:
        """The answer of the upstream where a policy says so, else of `engine`; first of all who was asked outside, if anybody.

        `toolset` as in a policy.

        Raises:
            UpstreamError: an upstream broke off in the middle of its answer.
        """
        policy = self._policy(sender, toolset)
        if policy and (name := policy.answer):
            told = False
            try:
                with self._asking(name, "answer") as model:
                    asked = {field: value for field, value in body.items() if field not in ENGINES_OWN}
                    async with aclosing(_events(model, asked, stream=stream)) as events:
                        async for event in events:
                            if not told:
                                yield Outside(name, "answer")
                                told = True
                            yield event
                return
            except AgentFluxError as error:
                if told:
                    raise UpstreamError(f"the upstream {name} broke off its answer; the gateway's log says why") from error
                yield Outside(name, "answer", error.code)
        async with aclosing(_events(engine, body, stream=stream)) as events:
            async for event in events:
                yield event

    def _policy(self, sender: Sender, toolset: str) -> Policy | None:
        if sender.private:
            return None
        fitting = (
            policy
            for policy in self._file.policies
            if {toolset, ANY} & set(policy.toolsets) and {sender.caller, ANY} & set(policy.callers)
        )
        return next(fitting, None)

    @contextmanager
    def _asking(self, name: str, purpose: Purpose) -> Iterator[Model]:
        outcome = "cancelled"
        self._running[name] += 1
        try:
            limit = self._file.upstreams[name].max_concurrency
            if self._running[name] > limit:
                raise Unavailable(f"upstream {name} has {limit} requests already (max_concurrency)")
            yield self._models[name]
            outcome = "used"
        except AgentFluxError as error:
            outcome = error.code
            log.warning("upstream failed", upstream=name, purpose=purpose, error=error.message)
            raise
        finally:
            self._running[name] -= 1
            self._count(name, purpose, outcome)


NOTHING_LEAVES = Upstreams(UpstreamsFile(), {}, lambda upstream, purpose, outcome: None)


def read_upstreams(path: Path | None, toolsets: Collection[str]) -> UpstreamsFile:
    """The settings file, YAML or JSON; None: nothing leaves.

    Raises:
        ValueError: naming the file and what is wrong in it.
    """
    if path is None:
        return UpstreamsFile()
    try:
        file = UpstreamsFile.model_validate(yaml.safe_load(path.read_text()) or {})
    except (OSError, yaml.YAMLError, ValidationError) as error:
        raise ValueError(f"upstreams_file {path}: {error}") from error
    known = {ANY, OTHER, NO_TOOLS, *toolsets}
    for number, policy in enumerate(file.policies):
        named = [name for name in (policy.answer, policy.low_margin and policy.low_margin.upstream) if name]
        for kind, names, possible in (("upstream", named, set(file.upstreams)), ("toolset", policy.toolsets, known)):
            for name in sorted(set(names) - possible):
                raise ValueError(f"upstreams_file {path}: policies.{number} names {kind} {name!r}; there are {sorted(possible)}")
    for name, upstream in file.upstreams.items():
        if upstream.key_file and not upstream.key_file.is_file():
            raise ValueError(f"upstreams_file {path}: key_file {upstream.key_file} of upstream {name} does not exist")
    return file


def says_private(value: object) -> bool:
    """Whether the value of the header `x-agentflux-private`, or of `metadata.private`, marks a request; in doubt it does."""
    return value is not None and str(value).strip().lower() not in ("", "false", "0", "no")


async def _events(model: Model, body: JsonObject, *, stream: bool) -> AsyncGenerator[Answered | AnswerChunk]:
    if not stream:
        yield Answered(await model.chat(body))
        return
    async with aclosing(model.stream_chat(body)) as chunks:
        async for chunk in chunks:
            yield AnswerChunk(chunk)


def _question(request: SelectionRequest) -> JsonObject:
    """The selection as a chat completion with the candidates as its tools."""
    return {
        "messages": request.messages,
        "tools": [tool.openai() for tool in request.tools if tool.name in _candidates(request)],
        "tool_choice": "auto" if request.may_answer else "required",
        "parallel_tool_calls": False,
    }


def _candidates(request: SelectionRequest) -> Sequence[str]:
    return [tool.name for tool in request.tools] if request.candidates is None else request.candidates


def _tool_of(reply: JsonObject, request: SelectionRequest, upstream: str) -> str | None:
    message = reply["choices"][0]["message"]
    calls = message.get("tool_calls") or []
    if not calls and request.may_answer:
        return None
    name = calls[0]["function"]["name"] if calls else None
    if name not in _candidates(request):
        raise UpstreamError(f"the upstream {upstream} selected {name!r}, which is no candidate")
    return str(name)
