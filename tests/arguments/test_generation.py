"""How arguments are written, and what happens when they are wrong."""

from __future__ import annotations

import pytest

from services.arguments.generation import Writer
from services.shared.clients.engines import EngineFleet
from services.shared.contracts.adapters import NoReleases, ServedRelease
from services.shared.contracts.arguments import ArgumentsRequest
from services.shared.contracts.engine import Engine
from services.shared.contracts.errors import (
    ArgumentsInvalid,
    ContextLengthExceeded,
    EngineUnavailable,
    InvalidRequest,
    InvalidToolSchema,
    Unavailable,
)
from services.shared.contracts.tools import Tool
from tests.fakes import FILES, FixedReleases, ScriptedEngine, served_release, tool, toy_renderer
from tests.shared.clients.fake_engine import engines

pytestmark = pytest.mark.anyio
RENDERER = toy_renderer()
READ = tool("read_file", path={"type": "string"})
MESSAGES = [{"role": "user", "content": "Read a.txt"}]


def writer(engine: ScriptedEngine) -> Writer:
    return Writer(engine, RENDERER, NoReleases(), base_model="base", max_tokens=64, grounding=4.0)


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
    assert asked.grounding == 4.0


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


async def test_an_adapter_that_the_engine_has_lost_is_no_fault_of_the_schema() -> None:
    async with engines(1, mood="bare") as (fake,):
        fleet = EngineFleet.connect(fake.url, timeout_s=10, role="arguments", base_model="base")
        with pytest.raises(EngineUnavailable, match="does not exist"):
            await with_releases(fleet, served_release(7)).generate(request(toolset=FILES, release=7))
        await fleet.aclose()


async def test_a_full_context_is_refused_with_its_size() -> None:
    with pytest.raises(ContextLengthExceeded, match="no room is left"):
        await writer(ScriptedEngine("{}", context=40)).generate(request())


async def test_a_tool_that_is_not_among_the_tools_is_named() -> None:
    with pytest.raises(InvalidRequest, match="rm_rf"):
        await writer(ScriptedEngine()).generate(request(tool="rm_rf"))


def with_releases(engine: Engine, *releases: ServedRelease) -> Writer:
    return Writer(engine, RENDERER, FixedReleases(*releases), base_model="base", max_tokens=64, grounding=4.0)


async def test_the_argument_adapter_of_the_tool_writes_on_names_alone() -> None:
    engine = ScriptedEngine('{"path":"a.txt"}')
    written = await with_releases(engine, served_release(7)).generate(request(toolset=FILES, release=7))
    assert (written.adapter, written.release) == ("files.read_file--000000000007", 7)
    prefix = RENDERER.prefix(MESSAGES, [Tool(name=name) for name in FILES.tools], "compact")
    assert engine.requests[0].prompt == RENDERER.arguments_prompt(prefix, "read_file")
    assert engine.requests[0].json_schema == READ.parameters


async def test_the_release_that_voted_writes_whatever_serves_by_now() -> None:
    engine = ScriptedEngine(*['{"path":"a.txt"}'] * 2)
    both = with_releases(engine, served_release(7), served_release(8))
    assert (await both.generate(request(toolset=FILES, release=7))).release == 7
    assert (await both.generate(request(toolset=FILES))).release == 8


async def test_right_after_a_start_the_release_that_voted_writes_and_nobody_else() -> None:
    class Starting(FixedReleases):
        def current(self, toolset: str) -> ServedRelease | None:
            raise Unavailable(f"the adapters of {toolset} are being warmed")

    writer = Writer(
        ScriptedEngine('{"path": "a.txt"}'),
        RENDERER,
        Starting(served_release(7)),
        base_model="base",
        max_tokens=64,
        grounding=4.0,
    )
    assert (await writer.generate(request(toolset=FILES, release=7))).release == 7
    with pytest.raises(Unavailable, match="being warmed"):
        await writer.generate(request(toolset=FILES))


async def test_a_release_that_nobody_knows_is_an_error_and_no_mixture() -> None:
    with pytest.raises(Unavailable, match="release 9 of files is unknown"):
        await with_releases(ScriptedEngine(), served_release(7)).generate(request(toolset=FILES, release=9))


async def test_a_tool_without_an_adapter_is_served_by_the_base_model_of_the_same_release() -> None:
    engine = ScriptedEngine('{"path":"a.txt"}')
    written = await with_releases(engine, served_release(7, arguments=[])).generate(request(toolset=FILES, release=7))
    assert (written.adapter, written.release) == ("base", 7)


async def test_preparing_reads_the_prefix_behind_everything_else() -> None:
    engine = ScriptedEngine("x")
    await with_releases(engine, served_release(7)).prepare(request(toolset=FILES, release=7))
    [asked] = engine.requests
    assert (asked.model, asked.max_tokens, asked.priority) == ("files.read_file--000000000007", 1, 10)
    assert asked.prompt == RENDERER.prefix(MESSAGES, [Tool(name=name) for name in FILES.tools], "compact").head


async def test_there_is_nothing_to_prepare_without_an_adapter() -> None:
    engine = ScriptedEngine()
    await writer(engine).prepare(request())
    assert engine.requests == []
