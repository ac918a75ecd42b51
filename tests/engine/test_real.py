"""The engine with the real vLLM and the real base model: one start, so one story, told in order."""

from __future__ import annotations

import asyncio

import pytest
from tokenizers import Tokenizer

from deploy.local import base_model
from services.shared.clients.engine import EngineClient
from services.shared.clients.http import HttpClient
from services.shared.contracts.engine import CompletionRequest
from services.shared.contracts.errors import InvalidRequest
from tests.engine.running import ROOT, all_gone, core_among, eventually, running_engine

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

MODEL = ROOT / ".run" / "models" / "smollm2-135m-instruct"
START_S = 240


def test_the_engine_answers_survives_the_loss_of_its_core_and_takes_vllm_along_when_it_is_killed(tmp_path):
    base_model.prepare(MODEL)
    with running_engine(tmp_path, MODEL) as engine:
        eventually(lambda: engine.get("/readyz").status_code == 200, within_s=START_S)
        asyncio.run(_it_chats_and_scores(engine.url))
        asyncio.run(_it_grounds(engine.url))
        assert "vllm:prompt_tokens_total" in engine.get("/metrics/vllm").text

        first = engine.descendants()
        core = core_among(first)
        assert core
        core.kill()
        eventually(lambda: all_gone(first), within_s=60)
        eventually(lambda: engine.status()["restarts"] == 1, within_s=30)
        assert engine.get("/readyz").status_code == 503

        # In the middle of the next start, as soon as there is a core again.
        eventually(lambda: core_among(engine.descendants()), within_s=START_S)
        second = engine.descendants()
        engine.process.kill()
        eventually(lambda: all_gone(second), within_s=10)


async def _it_chats_and_scores(url: str) -> None:
    client = HttpClient(url, service="engine", timeout_s=120)
    model = {"model": "smollm2-135m-instruct", "temperature": 0}
    try:
        # Of which the model is sure: after "the capital of France" bfloat16 on one kind of CPU goes on unlike on another.
        question = [{"role": "user", "content": "What is the capital of Japan?"}]
        chat = await client.post("/v1/chat/completions", {**model, "messages": question, "max_tokens": 20})
        # That it stops by itself shows that <|im_end|> is the end of a turn.
        assert chat["choices"][0]["message"]["content"] == "The capital of Japan is Tokyo."
        assert chat["choices"][0]["finish_reason"] == "stop"

        many = list(range(100, 228))
        scoring = {"max_tokens": 1, "logprobs": 128, "logprob_token_ids": many, "return_tokens_as_token_ids": True}
        body = {**model, **scoring, "prompt": [many * 3]}
        await client.post("/v1/completions", body)
        scored = await client.post("/v1/completions", body)
        assert {f"token_id:{token}" for token in many} <= scored["choices"][0]["logprobs"]["top_logprobs"][0].keys()
        assert scored["usage"]["prompt_tokens_details"]["cached_tokens"] == 352
    finally:
        await client.aclose()


async def _it_grounds(url: str) -> None:
    client = HttpClient(url, service="engine", timeout_s=120)
    engine = EngineClient(client)
    tokenizer = Tokenizer.from_file(str(MODEL / "tokenizer.json"))
    prompt = tokenizer.encode('The folder is called campsight. {"path": "', add_special_tokens=False).ids

    async def written(grounding: float, **more: object) -> str:
        request = CompletionRequest(model=MODEL.name, prompt=prompt, max_tokens=8, grounding=grounding, **more)
        return (await engine.complete(request)).choices[0].text

    try:
        free, grounded, *others = await asyncio.gather(written(0.0), written(20.0), *(written(0.0, seed=i) for i in range(3)))
        assert ("campsight" in free, "campsight" in grounded) == (False, True), (free, grounded)
        # Not that they are equal: in bfloat16, who shares a batch with whom decides between words as likely as each other.
        assert not any("campsight" in other for other in others), "who did not ask for it is not touched"
        with pytest.raises(InvalidRequest, match="agentflux_grounding"):
            await written(-1.0)
    finally:
        await client.aclose()
