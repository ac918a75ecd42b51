"""Several engines, of which one is the real vLLM and the other is not there: what the fakes say of its wire is true."""

from __future__ import annotations

import asyncio
import os

import pytest
from prometheus_client import CollectorRegistry

from deploy.local import base_model
from services.shared.clients.engines import EngineFleet
from services.shared.clients.placement import conversation_of_prompt
from services.shared.contracts.engine import CompletionRequest
from services.shared.contracts.errors import EngineUnavailable, InvalidRequest
from services.shared.contracts.prompts import PromptRenderer
from tests.engine.running import ROOT, eventually, running_engine
from tests.fakes import tool

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

FOLDER = ROOT / ".run" / "models" / "smollm2-135m-instruct"
MODEL = "smollm2-135m-instruct"
DEAD = "http://127.0.0.1:1"
START_S = 240


def test_requests_go_around_a_dead_engine_and_a_killed_one_is_said_to_be_away(tmp_path):
    base_model.prepare(FOLDER)
    with running_engine(tmp_path, FOLDER) as engine:
        eventually(lambda: engine.get("/readyz").status_code == 200, within_s=START_S)
        asyncio.run(_story(engine.url, kill=lambda: os.kill(engine.status()["vllm_pid"], 9)))


async def _story(url, kill):
    fleet = EngineFleet.connect(f"{DEAD},{url}", timeout_s=120, role="selector", base_model=MODEL)
    registry = CollectorRegistry()
    registry.register(fleet.metrics)
    try:
        renderer = PromptRenderer.load(FOLDER)
        for question in ("Read a.txt", "Read b.txt", "List c", "Delete d"):
            prefix = renderer.prefix([{"role": "user", "content": question}], [tool("read_file", path={"type": "string"})])
            prompt = renderer.name_prompt(prefix)
            assert conversation_of_prompt(prompt) == conversation_of_prompt(renderer.arguments_prompt(prefix, "read_file"))
            scores = await fleet.score(MODEL, [prompt], [10, 11])
            assert scores.logprobs[0].keys() >= {10, 11}
        chat = {"model": MODEL, "messages": [{"role": "user", "content": "Say yes."}], "max_tokens": 5}
        assert [chunk async for chunk in fleet.stream_chat(chat)][-1]["usage"]["completion_tokens"] > 0
        await fleet.warm(MODEL, [1, 2, 3])
        with pytest.raises(InvalidRequest, match="does not exist"):
            await fleet.warm("filesystem.select--0123456789ab", [1, 2, 3])
        assert await fleet.context_length() > 0
        assert await fleet.ready() is None
        assert registry.get_sample_value("agentflux_engine_up", {"engine": DEAD}) == 0
        ok = {"adapter": MODEL, "role": "selector", "outcome": "ok"}
        assert registry.get_sample_value("agentflux_engine_requests_total", ok) == 5

        kill()
        with pytest.raises(EngineUnavailable):
            await fleet.complete(CompletionRequest(model=MODEL, prompt=[1, 2, 3], max_tokens=400))
        with pytest.raises(EngineUnavailable):
            await fleet.context_length()
    finally:
        await fleet.aclose()
