"""Activated LoRA in the real vLLM, against PEFT: one start for all tests; a cache salt of its own makes a cache empty.

Prompts are read 128 tokens at a time, and the cache holds some 3,000 tokens, so that chunks and preemptions happen. All of it
is computed in float32, where nothing but a mistake makes a difference; in bfloat16 the order of additions alone makes one of
0.04, and decides near-ties.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from services.shared.contracts.adapters import CARD_FILE
from services.shared.contracts.prompts import PromptRenderer
from tests.engine.running import ROOT
from tests.engine.vllm_plugin.activated_engine import BLOCK, Vllm, cached_tokens, running_vllm
from tests.engine.vllm_plugin.activated_prompts import GENERATION_PROMPT, NEW_TURN, Case, cases, conversation, last_occurrence

pytestmark = [pytest.mark.real, pytest.mark.timeout(1500)]

MODEL = ROOT / ".run" / "models" / "smollm2-135m-instruct"
SCORED = list(range(300, 49_000, 400))
# Of log probabilities, in float32. Between two of the models the mean difference is 0.8 and more.
NOISE = 0.001


@dataclass(frozen=True)
class Served:
    """The running engine, and the same adapters in PEFT."""

    vllm: Vllm
    peft: Any
    renderer: PromptRenderer
    store: Path


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    # Both import torch, which takes seconds; a run without real parts is spared that.
    from deploy.local import base_model
    from tests.engine.vllm_plugin.activated_adapters import RandomAdapter, peft_model, publish

    base_model.prepare(MODEL)
    folder = tmp_path_factory.mktemp("activated")
    adapters = [
        RandomAdapter("one", GENERATION_PROMPT, seed=1),
        RandomAdapter("two", GENERATION_PROMPT, seed=2),
        RandomAdapter("turn", NEW_TURN, seed=3),
        RandomAdapter("plain", None, seed=4),
        RandomAdapter("successor", NEW_TURN, seed=5),
    ]
    peft = peft_model(MODEL, adapters)
    paths = {adapter.alias: publish(peft, adapter, folder / "store") for adapter in adapters}
    del paths["successor"]
    flags = [
        "--dtype",
        "float32",
        "--max-model-len",
        "2048",
        "--max-num-batched-tokens",
        "128",
        "--num-gpu-blocks-override",
        "96",
    ]
    with running_vllm(folder, MODEL, paths, *flags) as vllm:
        yield Served(vllm, peft, PromptRenderer.load(MODEL), folder / "store")


def test_every_token_gets_the_probabilities_that_peft_gives_it(served):
    asked = cases(served.renderer, ["base", "one", "two", "turn", "plain"], 60)
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(lambda case: _scored_prompt(served.vllm, case), asked))
    errors, gaps, positions = _differences(served.peft, asked, answers)
    assert positions > 5_000
    assert max(errors) < NOISE
    assert gaps == []
    # The measure sees an adapter that does not act.
    activated = [number for number, case in enumerate(asked) if case.model in ("one", "two", "turn")][:6]
    as_base = [Case("base", asked[number].prompt) for number in activated]
    wrong, _, _ = _differences(served.peft, as_base, [answers[number] for number in activated])
    assert max(wrong) > 3


def test_whoever_comes_first_the_others_share_the_prompt_and_answer_as_on_an_empty_cache(served):
    models = ["base", "one", "two", "plain"]
    prompts = [_prompt_with_start(served.renderer, rest) for rest in (0, 1, BLOCK - 2, BLOCK - 1)]
    cold = [{model: _scores(served.vllm, model, prompt) for model in models} for prompt in prompts]
    for number, order in enumerate(permutations(models)):
        prompt, expected, salt = prompts[number % len(prompts)], cold[number % len(prompts)], _salt()
        shared = last_occurrence(prompt, GENERATION_PROMPT) // BLOCK * BLOCK
        for place, model in enumerate(order):
            got = _scores(served.vllm, model, prompt, salt)
            assert _distance(got, expected[model]) < NOISE, (order, model)
            read_before = model != "plain" and set(order[:place]) - {"plain"}
            assert got.cached == (shared if read_before else 0), (order, model)
        assert min(_distance(expected[a], expected[b]) for a, b in permutations(models, 2)) > 300 * NOISE


def test_what_an_adapter_computed_is_its_own_and_serves_nobody_else(served):
    prompt = [*_prompt_with_start(served.renderer, 5), *range(500, 600)]
    shared = last_occurrence(prompt, GENERATION_PROMPT) // BLOCK * BLOCK
    cold, salt = {model: _scores(served.vllm, model, prompt) for model in ("base", "one", "two")}, _salt()
    for model, cached in [("one", 0), ("one", (len(prompt) - 1) // BLOCK * BLOCK), ("two", shared), ("base", shared)]:
        got = _scores(served.vllm, model, prompt, salt)
        assert got.cached == cached
        assert _distance(got, cold[model]) < NOISE


def test_what_an_adapter_wrote_is_read_by_the_base_model_in_the_next_turn(served):
    prompt, salt = _prompt_with_start(served.renderer, 5), _salt()
    written = served.vllm.complete("one", prompt, max_tokens=80, ignore_eos=True, logprobs=0, cache_salt=salt)
    longer = [*prompt, *_tokens(written), 2, *NEW_TURN, *GENERATION_PROMPT[1:], 198]
    assert _scores(served.vllm, "one", longer, salt).cached == last_occurrence(prompt, GENERATION_PROMPT) // BLOCK * BLOCK
    for model in ("one", "two", "base"):
        assert _distance(_scores(served.vllm, model, longer, salt), _scores(served.vllm, model, longer)) < NOISE


def test_several_samples_and_several_prompts_of_one_call_are_as_good_as_calls_of_their_own(served):
    prompt = _prompt_with_start(served.renderer, 3)
    alone = _tokens(served.vllm.complete("one", prompt, max_tokens=6, logprobs=0))
    samples = served.vllm.complete("one", prompt, max_tokens=6, logprobs=0, n=3, temperature=0.001, seed=1)
    assert [_tokens(samples, choice) for choice in range(3)] == [alone] * 3
    branches = [[*prompt, branch] for branch in (44, 1000, 2000, 3000)]
    together = served.vllm.complete("one", branches, max_tokens=1, **_SCORING, cache_salt=_salt())
    for number, branch in enumerate(branches):
        assert _distance(_read(together, number), _scores(served.vllm, "one", branch)) < NOISE


def test_requests_that_were_preempted_go_on_where_they_were(served):
    before = served.vllm.metric("vllm:num_preemptions_total")
    models = ["one", "two", "plain", "base"]
    asked = [Case(models[i % 4], conversation(served.renderer, 100 + i, turns=2, words=60)) for i in range(13)]
    with ThreadPoolExecutor(13) as pool:
        more = {"max_tokens": 40, "ignore_eos": True, "logprobs": 1}
        answers = list(pool.map(lambda case: served.vllm.complete(case.model, case.prompt, **more), asked))
    assert served.vllm.metric("vllm:num_preemptions_total") > before
    errors, gaps, _ = _differences(served.peft, asked, answers)
    assert max(errors) < NOISE
    assert gaps == []


def test_an_adapter_loaded_under_a_name_used_before_is_the_new_one(served):
    old, new = (next(served.store.glob(f"toolset.{alias}--*")) for alias in ("two", "successor"))
    prompt, salt = _prompt_with_start(served.renderer, 7), _salt()
    _load(served.vllm, "again", old)
    first = _scores(served.vllm, "again", prompt, salt)
    served.vllm.client.post("/v1/unload_lora_adapter", json={"lora_name": "again"}).raise_for_status()
    _load(served.vllm, "again", new)
    second = _scores(served.vllm, "again", prompt, salt)
    # Its activation tokens are others too.
    assert second.cached == last_occurrence(prompt, NEW_TURN) // BLOCK * BLOCK
    assert _distance(second, _scores(served.vllm, "again", prompt)) < NOISE
    assert _distance(first, second) > 300 * NOISE
    served.vllm.client.post("/v1/unload_lora_adapter", json={"lora_name": "again"}).raise_for_status()


def test_an_adapter_with_a_damaged_card_is_not_loaded_and_harms_nobody(served, tmp_path):
    for file in next(served.store.glob("toolset.one--*")).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    (tmp_path / CARD_FILE).write_text("{")
    reply = served.vllm.client.post("/v1/load_lora_adapter", json={"lora_name": "damaged", "lora_path": str(tmp_path)})
    assert reply.status_code >= 400
    assert "JSON" in reply.text
    assert served.vllm.complete("one", [1, 2, 3], max_tokens=1)["choices"]


@dataclass(frozen=True)
class _Scores:
    logprobs: list[float]
    cached: int


_SCORING = {"logprobs": len(SCORED), "logprob_token_ids": SCORED}


def _scores(vllm: Vllm, model: str, prompt: list[int], salt: str | None = None) -> _Scores:
    """What `model` gives each of SCORED as the next token; without `salt`, on an empty cache."""
    return _read(vllm.complete(model, prompt, max_tokens=1, cache_salt=salt or _salt(), **_SCORING))


def _read(answer: dict[str, Any], choice: int = 0) -> _Scores:
    row = answer["choices"][choice]["logprobs"]["top_logprobs"][0]
    return _Scores([row[f"token_id:{token}"] for token in SCORED], cached_tokens(answer))


def _distance(one: _Scores, other: _Scores) -> float:
    return float(np.abs(np.subtract(one.logprobs, other.logprobs)).mean())


def _salt() -> str:
    return uuid.uuid4().hex


def _tokens(answer: dict[str, Any], choice: int = 0) -> list[int]:
    return [int(token.removeprefix("token_id:")) for token in answer["choices"][choice]["logprobs"]["tokens"]]


def _prompt_with_start(renderer: PromptRenderer, rest: int) -> list[int]:
    """A prompt of some 150 tokens whose generation prompt begins `rest` tokens after the beginning of a block."""
    prompt = conversation(renderer, 1, turns=2, words=25)
    missing = (rest - last_occurrence(prompt, GENERATION_PROMPT)) % BLOCK
    return [*prompt[:10], *range(700, 700 + missing), *prompt[10:]]


def _load(vllm: Vllm, name: str, path: Path) -> None:
    reply = vllm.client.post("/v1/load_lora_adapter", json={"lora_name": name, "lora_path": str(path)})
    assert reply.status_code == 200, reply.text


def _scored_prompt(vllm: Vllm, case: Case) -> dict[str, Any]:
    return vllm.complete(case.model, case.prompt, max_tokens=4, logprobs=1, prompt_logprobs=1)


def _differences(peft: Any, asked: list[Case], answers: list[dict[str, Any]]) -> tuple[list[float], list[float], int]:
    """How far vLLM is from PEFT: the errors of all log probabilities that it tells; how much less likely than PEFT's its first
    choice is, where the two are not the same; and the number of positions."""
    from tests.engine.vllm_plugin.activated_adapters import logprobs

    errors, gaps, positions = [], [], 0
    for case, answer in zip(asked, answers, strict=True):
        expected = logprobs(peft, None if case.model == "base" else case.model, case.prompt, _tokens(answer)).numpy()
        for position, row in _told(case, answer):
            best = max(row, key=lambda token: row[token])
            errors += [abs(float(expected[position, token]) - logprob) for token, logprob in row.items()]
            if best != expected[position].argmax():
                gaps.append(float(expected[position].max() - expected[position, best]))
            positions += 1
    return errors, gaps, positions


def _told(case: Case, answer: dict[str, Any]) -> Iterator[tuple[int, dict[int, float]]]:
    """Each position after which vLLM told log probabilities: those of the token that follows and of the most likely one."""
    choice = answer["choices"][0]
    for position, row in enumerate((choice.get("prompt_logprobs") or [None])[1:]):
        yield position, {int(token): told["logprob"] for token, told in row.items()}
    for position, row in enumerate(choice["logprobs"]["top_logprobs"], start=len(case.prompt) - 1):
        yield position, {int(token.removeprefix("token_id:")): logprob for token, logprob in row.items()}
