"""The plugin in the real vLLM with the real base model, with room for three adapters of four."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from statistics import mean

import pytest

from deploy.local import base_model
from tests.engine.vllm_plugin.parity import Agreement, Peft, Position, positions, prompts
from tests.engine.vllm_plugin.serving import MODEL, Vllm, publish_strong, running_vllm

pytestmark = [pytest.mark.real, pytest.mark.timeout(1200)]

PROMPTS = 52
# Tokens that each prompt is continued by.
REPLY = 8
RANKS = [8, 16, 32, 16]


@dataclass(frozen=True)
class Served:
    """A running vLLM, its store, and the names of four adapters in it."""

    vllm: Vllm
    store: Path
    names: list[str]


@pytest.fixture(scope="module")
def store(tmp_path_factory) -> Path:
    base_model.prepare(MODEL)
    folder = tmp_path_factory.mktemp("store")
    for i, rank in enumerate(RANKS):
        publish_strong(folder, tmp_path_factory.mktemp("scratch") / "adapter", tool=f"tool{i}", seed=i, rank=rank)
    return folder


@pytest.fixture(scope="module")
def served(store, tmp_path_factory) -> Iterator[Served]:
    with serving(store, tmp_path_factory.mktemp("vllm") / "bfloat16") as engine:
        yield engine


@contextmanager
def serving(store: Path, folder: Path, *flags: str) -> Iterator[Served]:
    """vLLM with room for three adapters."""
    names = sorted(adapter.name for adapter in store.glob("*.tool?--*"))
    with running_vllm(folder, store, "--max-loras", "3", "--max-cpu-loras", "3", *flags) as vllm:
        yield Served(vllm, store, names)


@pytest.fixture(scope="module")
def peft(store) -> Peft:
    return Peft(MODEL, {adapter.name: adapter for adapter in sorted(store.glob("*.tool?--*"))[:3]})


def agreements(served: Served, peft: Peft) -> tuple[Agreement, Agreement]:
    """That of requests for the base model and that of requests for three adapters, all of them sent together."""
    models = ["base", *served.names[:3]]
    cases = [(models[i % 4], prompt) for i, prompt in enumerate(prompts(MODEL, PROMPTS, tokens=60))]

    def ask(case: tuple[str, list[int]]) -> tuple[list[int], list[Position]]:
        model, prompt = case
        answer = served.vllm.complete(
            model, [prompt], max_tokens=REPLY, ignore_eos=True, logprobs=1, prompt_logprobs=1, return_tokens_as_token_ids=True
        )
        return positions(prompt, answer["choices"][0])

    # Twelve at a time, so that prompts and single tokens of all four models share steps.
    with ThreadPoolExecutor(12) as asking:
        answers = list(asking.map(ask, cases))
    base, adapters = Agreement(), Agreement()
    for (model, _), (tokens, answer) in zip(cases, answers, strict=True):
        plain = peft.logprobs("base", tokens)
        if model == "base":
            base.add(plain, plain, tokens, answer)
        else:
            adapters.add(peft.logprobs(model, tokens), plain, tokens, answer)
    print(f"\nbase model: {base}\nadapters:   {adapters}")
    assert mean(adapters.effects) > 0.5, "the adapters do too little to show anything"
    return base, adapters


def test_in_float32_batches_of_base_model_and_adapters_are_what_peft_computes(store, peft, tmp_path):
    with serving(store, tmp_path / "float32", "--dtype", "float32") as served:
        for agreement in agreements(served, peft):
            assert mean(agreement.errors) < 0.001
            assert agreement.same_best >= 0.995
            assert max(agreement.gaps, default=0.0) < 0.01


def test_in_bfloat16_adapters_lose_no_more_than_the_base_model_does_by_itself(served, peft):
    base, adapters = agreements(served, peft)
    assert mean(adapters.errors) < 1.5 * mean(base.errors)
    assert adapters.same_best > base.same_best - 0.02
    # Another token is the likeliest only where two are about as likely.
    assert mean(adapters.gaps) < 0.25


def test_an_adapter_is_published_while_vllm_runs_and_loaded_once_for_all_who_wait_for_it(served, tmp_path):
    for name in served.names:
        served.vllm.complete(name, [[1, 2, 3]], max_tokens=1)
    fresh = publish_strong(served.store, tmp_path / "scratch", tool="fresh", seed=99)
    with ThreadPoolExecutor(8) as asking:
        list(asking.map(lambda token: served.vllm.complete(fresh, [[1, token]], max_tokens=1), range(8)))

    loaded = [event for event in served.vllm.events("adapter_loaded") if event["adapter"] == fresh]
    assert len(loaded) == 1
    assert 0 < loaded[0]["seconds"] < 60
    # There was room for three, and all four had been asked for.
    assert {event["adapter"] for event in served.vllm.events("adapter_evicted")} & set(served.names)


@pytest.mark.parametrize(
    "path", ["/v1/load_lora_adapter", "/v1/unload_lora_adapter", "/adapters", "/invocations", "//v1/load_lora_adapter/"]
)
def test_nobody_loads_adapters_by_hand(served, path):
    body = {"lora_name": "mine", "lora_path": str(served.store / served.names[0])}
    reply = served.vllm.client.post(f"http://engine{path}", json=body)
    assert (reply.status_code, reply.json()["error"]["type"]) == (404, "NotFoundError")
    assert "mine" not in [model["id"] for model in served.vllm.client.get("/v1/models").json()["data"]]


def refusal(served: Served, name: str) -> tuple[int, str]:
    """Status and message of a request for that model, which has to be counted too."""
    reply = served.vllm.client.post("/v1/completions", json={"model": name, "prompt": [1, 2, 3], "max_tokens": 1})
    assert name[:500] in [event["adapter"] for event in served.vllm.events("adapter_refused")]
    return reply.status_code, reply.json()["error"]["message"]


def test_what_is_not_published_is_not_found(served, tmp_path):
    outside = tmp_path / "files.select--0123456789ab"
    outside.mkdir()
    for name in (
        "gpt-4",
        "files.select--0123456789ab",
        f"../../{outside.name}",
        str(outside),
        str(served.store / served.names[0]),
    ):
        status, message = refusal(served, name)
        assert (status, "neither the base model nor a published adapter" in message) == (404, True), message


def test_a_damaged_adapter_is_refused_with_the_reason(served, tmp_path):
    name = publish_strong(served.store, tmp_path / "scratch", tool="damaged", seed=50)
    weights = served.store / name / "adapter_model.safetensors"
    weights.chmod(0o644)
    weights.write_bytes(weights.read_bytes()[:-2] + b"\x01\x01")
    assert refusal(served, name)[0] == 400
    assert "its hash differs" in refusal(served, name)[1]


def test_a_pickle_is_refused(served, tmp_path):
    name = publish_strong(served.store, tmp_path / "scratch", tool="pickled", seed=51)
    (served.store / name).chmod(0o755)
    (served.store / name / "adapter_model.safetensors").rename(served.store / name / "adapter_model.bin")
    status, message = refusal(served, name)
    assert (status, "is a pickle" in message) == (400, True), message


def test_an_adapter_that_the_worker_cannot_load_is_refused_and_the_engine_goes_on(served, tmp_path):
    name = publish_strong(served.store, tmp_path / "scratch", tool="wide", seed=52, rank=64)
    assert refusal(served, name)[0] == 400
    reason = next(event["reason"] for event in served.vllm.events("adapter_refused") if event["adapter"] == name)
    assert "64" in reason
    served.vllm.complete("base", [[1, 2, 3]], max_tokens=1)
