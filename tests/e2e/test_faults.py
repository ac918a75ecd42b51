"""Parts that die while requests are under way: a clear error or none at all, never a hang, and then it works again."""

from __future__ import annotations

import json
import os
import signal
import threading
import time
from collections.abc import Iterator
from typing import Any

import openai
import psutil
import pytest

from tests.deployment import Deployment, eventually

pytestmark = pytest.mark.real

# The engine takes about half a minute to come back, more on a busy machine.
RECOVERY_S = 180
# The model's tokens that end a text, so that none does.
END_OF_TEXT = {"0": -100, "2": -100}


@pytest.fixture
def client(deployment: Deployment) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=deployment.base_url, api_key="none", max_retries=0, timeout=120) as client:
        yield client


def turn_with_history(results: int) -> list[Any]:
    """A turn in which the same call gave the same result `results` times."""
    messages: list[Any] = [{"role": "user", "content": "Read the file README.txt"}]
    for index in range(results):
        function = {"name": "read_file", "arguments": json.dumps({"path": "README.txt"})}
        messages.append(
            {
                "role": "assistant",
                "content": None,
                "tool_calls": [{"id": f"call_{index}", "type": "function", "function": function}],
            }
        )
        messages.append({"role": "tool", "tool_call_id": f"call_{index}", "content": "Error: busy"})
    return messages


def test_an_engine_killed_in_the_middle_of_a_request_is_a_503_and_comes_back(
    deployment: Deployment, client: openai.OpenAI
) -> None:
    vllm = deployment.get("engine", "/v1/status").json()["vllm_pid"]
    family = [psutil.Process(vllm), *psutil.Process(vllm).children(recursive=True)]
    outcome: list[Exception | Any] = []

    def request() -> None:
        try:
            story: list[Any] = [{"role": "user", "content": "Tell a very long story."}]
            never_ending: Any = {"model": deployment.model, "max_tokens": 4000, "logit_bias": END_OF_TEXT}
            outcome.append(client.chat.completions.create(messages=story, **never_ending))
        except openai.APIError as error:
            outcome.append(error)

    thread = threading.Thread(target=request)
    thread.start()
    time.sleep(2)
    os.kill(vllm, signal.SIGKILL)
    thread.join(timeout=60)
    assert not thread.is_alive(), "the request hangs"
    (error,) = outcome
    assert isinstance(error, openai.InternalServerError), error
    assert error.status_code == 503
    assert error.code == "engine_unavailable"

    eventually(lambda: not any(p.is_running() and p.status() != psutil.STATUS_ZOMBIE for p in family), "the old vLLM is gone")
    with pytest.raises(openai.InternalServerError) as refused:
        client.chat.completions.create(model="filesystem", messages=turn_with_history(0))
    assert refused.value.code == "engine_unavailable"
    assert deployment.get("gateway", "/readyz").status_code == 503

    deployment.wait_until_ready(RECOVERY_S)
    completion = client.chat.completions.create(model="filesystem", messages=turn_with_history(0))
    assert completion.choices[0].finish_reason == "tool_calls"


def test_with_a_frozen_valkey_requests_go_on_and_the_loop_check_still_works(
    deployment: Deployment, client: openai.OpenAI
) -> None:
    valkey = deployment.pid("valkey")
    os.kill(valkey, signal.SIGSTOP)
    try:
        raw = client.chat.completions.with_raw_response.create(
            model="filesystem", messages=turn_with_history(5), max_tokens=32, extra_headers={"x-session-id": "frozen"}
        )
        assert json.loads(raw.headers["x-agentflux-selection"])["tool"] != "read_file", "withdrawn by the request's own history"
        ready = deployment.get("callcache", "/readyz")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert deployment.get("gateway", "/readyz").status_code == 200
    finally:
        os.kill(valkey, signal.SIGCONT)
    eventually(lambda: deployment.get("callcache", "/readyz").json()["status"] == "ready", "the call cache is well again")


def test_a_killed_valkey_is_started_again(deployment: Deployment, client: openai.OpenAI) -> None:
    before = deployment.pid("valkey")
    os.kill(before, signal.SIGKILL)
    asked = {"model": "filesystem", "messages": turn_with_history(1), "max_tokens": 32}
    assert client.chat.completions.create(**asked, extra_headers={"x-session-id": "any"}).choices
    eventually(lambda: deployment.pid("valkey") != before, "a new Valkey")
    eventually(lambda: deployment.get("callcache", "/readyz").json()["status"] == "ready", "the call cache is well again")


def test_a_killed_callcache_is_left_out_of_the_request(deployment: Deployment, client: openai.OpenAI) -> None:
    os.kill(deployment.pid("callcache"), signal.SIGKILL)
    asked = {"model": "filesystem", "messages": turn_with_history(1), "max_tokens": 32}
    assert client.chat.completions.create(**asked, extra_headers={"x-session-id": "any"}).choices
    deployment.wait_until_ready()


def test_a_killed_selector_is_named_and_comes_back_with_its_adapters(deployment: Deployment, client: openai.OpenAI) -> None:
    os.kill(deployment.pid("selector"), signal.SIGKILL)
    refusals = list[openai.InternalServerError]()

    def vote() -> Any:
        try:
            raw = client.chat.completions.with_raw_response.create(model="filesystem", messages=turn_with_history(0))
        except openai.InternalServerError as refused:
            refusals.append(refused)
            return None
        return json.loads(raw.headers["x-agentflux-selection"])

    first = eventually(vote, "a vote")
    assert {refused.status_code for refused in refusals} == {503}
    assert "selector" in refusals[0].message
    # Not by the base model while they are being warmed.
    assert first["adapter"].startswith("filesystem.select--")


@pytest.mark.parametrize(("repeats", "outcome"), [(3, "warned"), (5, "withdrawn"), (10, "blocked")])
def test_the_loop_ladder(deployment: Deployment, client: openai.OpenAI, repeats: int, outcome: str) -> None:
    raw = client.chat.completions.with_raw_response.create(model="filesystem", messages=turn_with_history(repeats), max_tokens=64)
    choice = raw.parse().choices[0]
    if outcome == "blocked":
        assert choice.finish_reason == "stop"
        assert "read_file was called 10 times" in (choice.message.content or "")
    elif outcome == "withdrawn":
        assert "read_file" not in json.loads(raw.headers["x-agentflux-selection"])["probabilities"]
    else:
        assert raw.headers["x-agentflux-selection"]


def test_a_client_that_trims_its_history_is_counted_by_its_session(deployment: Deployment, client: openai.OpenAI) -> None:
    """Six requests show one call each; only the call cache can know that it is the same one again and again."""
    full = turn_with_history(6)
    for index in range(6):
        trimmed = [full[0], *full[1 + 2 * index : 3 + 2 * index]]
        raw = client.chat.completions.with_raw_response.create(
            model="filesystem",
            messages=trimmed,
            max_tokens=32,
            # An answer in words would end the turn, and clear the count. Between two tools both stand in the header.
            tool_choice={
                "type": "allowed_tools",
                "allowed_tools": {
                    "mode": "required",
                    "tools": [{"type": "function", "function": {"name": name}} for name in ("read_file", "list_directory")],
                },
            },
            extra_headers={"x-session-id": "trimming-client"},
        )
        vote = json.loads(raw.headers["x-agentflux-selection"])
        assert ("read_file" in vote["probabilities"]) == (index < 4), vote
