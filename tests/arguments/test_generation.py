"""How arguments are written, and what happens when they are wrong."""

from __future__ import annotations

import pytest

from services.arguments.generation import Writer
from services.shared.contracts.arguments import ArgumentsRequest
from services.shared.contracts.errors import ArgumentsInvalid, ContextLengthExceeded, InvalidRequest, InvalidToolSchema
from services.shared.contracts.tools import Tool
from tests.fakes import ScriptedEngine, tool, toy_renderer

pytestmark = pytest.mark.anyio
RENDERER = toy_renderer()
READ = tool("read_file", path={"type": "string"})
MESSAGES = [{"role": "user", "content": "Read a.txt"}]


def writer(engine: ScriptedEngine) -> Writer:
    return Writer(engine, RENDERER, model="base", max_tokens=64)


def request(**changes: object) -> ArgumentsRequest:
    return ArgumentsRequest.model_validate({"tool": "read_file", "tools": [READ], "messages": MESSAGES, **changes})


async def test_the_arguments_follow_the_forced_prefix_under_the_tools_schema() -> None:
    engine = ScriptedEngine('{"path":"a.txt"}')
    written = await writer(engine).generate(request())
    assert (written.arguments, written.attempts, written.finish_reason) == ('{"path":"a.txt"}', 1, "stop")
    asked = engine.requests[0]
    assert asked.json_schema == READ.parameters
    assert asked.temperature == 0.0
    assert asked.max_tokens == 64


async def test_a_tool_without_parameters_needs_no_model() -> None:
    engine = ScriptedEngine()
    written = await writer(engine).generate(request(tool="now", tools=[Tool(name="now")]))
    assert (written.arguments, written.attempts, engine.requests) == ("{}", 0, [])


async def test_the_second_try_is_shown_what_was_wrong_with_the_first() -> None:
    engine = ScriptedEngine('{"path":1}', '{"path":"a.txt"}')
    written = await writer(engine).generate(request())
    assert (written.arguments, written.attempts) == ('{"path":"a.txt"}', 2)
    assert written.usage.completion_tokens == 14
    first, second = (RENDERER._tokenizer.decode(r.prompt, skip_special_tokens=False) for r in engine.requests)
    assert "is not of type" in second
    assert "is not of type" not in first


async def test_two_invalid_tries_are_a_named_error() -> None:
    with pytest.raises(ArgumentsInvalid, match=r"'read_file'.*2 times.*required property"):
        await writer(ScriptedEngine("{}", "{}")).generate(request())


async def test_the_callers_own_limit_ends_the_text_as_openai_does() -> None:
    written = await writer(ScriptedEngine('{"pa', finish="length")).generate(request(max_tokens=2))
    assert (written.arguments, written.finish_reason) == ('{"pa', "length")


async def test_our_own_limit_is_named_in_the_error() -> None:
    with pytest.raises(ArgumentsInvalid, match="longer than 64 tokens"):
        await writer(ScriptedEngine('{"pa', '{"pa', finish="length")).generate(request())


async def test_an_unusable_schema_is_refused_before_the_engine_is_asked() -> None:
    engine = ScriptedEngine()
    broken = Tool(name="read_file", parameters={"properties": {"path": {"type": "nonsense"}}})
    with pytest.raises(InvalidToolSchema):
        await writer(engine).generate(request(tools=[broken]))
    assert engine.requests == []


async def test_a_grammar_that_the_engine_refuses_is_an_unusable_schema() -> None:
    class Refusing(ScriptedEngine):
        async def complete(self, request: object) -> object:  # type: ignore[override]
            raise InvalidRequest("grammar error: lookahead is not supported")

    with pytest.raises(InvalidToolSchema, match="lookahead"):
        await writer(Refusing()).generate(request())


async def test_a_full_context_is_refused_with_its_size() -> None:
    with pytest.raises(ContextLengthExceeded, match="no room is left"):
        await writer(ScriptedEngine("{}", context=40)).generate(request())


async def test_a_tool_that_is_not_among_the_tools_is_named() -> None:
    with pytest.raises(InvalidRequest, match="rm_rf"):
        await writer(ScriptedEngine()).generate(request(tool="rm_rf"))
