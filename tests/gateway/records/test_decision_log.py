"""Turns that were served, and what the trainer's importer makes of their log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest

from services.gateway.records.decision_log import DecisionLog
from services.shared.chassis.jsonl import JsonLines
from services.shared.contracts.arguments import ArgumentsRequest, GeneratedArguments
from services.shared.contracts.errors import ArgumentsInvalid
from services.shared.contracts.selection import SelectionRequest
from services.shared.contracts.tools import JsonObject
from tests.fakes import FakeSelector, FakeWriter
from tests.gateway.watched import CATALOGUE, TOOLS, Watched, watched_gateway
from trainer.importing import imported_decisions

pytestmark = pytest.mark.anyio
SECRET = "ann@corp.example"


def log_in(folder: Path, *, sample: float = 1.0) -> DecisionLog:
    turns, feedback = (
        JsonLines(folder, name, max_bytes=1 << 20, max_files=4, count=lambda _: None) for name in ("decisions", "feedback")
    )
    return DecisionLog(turns, feedback, CATALOGUE, sample=sample)


def files(folder: Path, name: str = "decisions") -> list[Path]:
    return sorted(folder.glob(f"{name}-*.jsonl"))


def rows(folder: Path, name: str = "decisions") -> list[JsonObject]:
    return [json.loads(line) for path in files(folder, name) for line in path.read_text().splitlines()]


def calls_once(request: SelectionRequest) -> str | None:
    return None if any(message["role"] == "tool" for message in request.messages) else "read_file"


def message_of(reply: httpx.Response) -> JsonObject:
    """The reply's message, as an agent sends it back."""
    if "event-stream" not in reply.headers["content-type"]:
        message: JsonObject = reply.json()["choices"][0]["message"]
        return message
    deltas = [json.loads(line[6:])["choices"][0]["delta"] for line in reply.text.splitlines() if line.startswith("data: {")]
    content = "".join(delta.get("content") or "" for delta in deltas)
    pieces = [piece for delta in deltas for piece in delta.get("tool_calls", [])]
    if not pieces:
        return {"role": "assistant", "content": content}
    arguments = "".join(piece["function"].get("arguments", "") for piece in pieces)
    function = {"name": pieces[0]["function"]["name"], "arguments": arguments}
    return {"role": "assistant", "content": "", "tool_calls": [{"id": pieces[0]["id"], "type": "function", "function": function}]}


async def converse(gateway: Watched, question: str, **fields: Any) -> list[JsonObject]:
    """Two turns, as an agent has them: a call, and with its result the answer."""
    messages: list[JsonObject] = [{"role": "user", "content": question}]
    messages.append(message_of(await gateway.chat(messages, **fields)))
    call = messages[1]["tool_calls"][0]
    messages.append({"role": "tool", "tool_call_id": call["id"], "content": f"To: {SECRET}"})
    messages.append(message_of(await gateway.chat(messages, **fields)))
    return messages


@pytest.mark.parametrize("stream", [False, True])
async def test_a_logged_conversation_is_imported_as_it_was_without_its_secrets(tmp_path: Path, stream: bool) -> None:
    log = log_in(tmp_path)
    writer = FakeWriter(json.dumps({"path": SECRET}))
    async with watched_gateway(selector=FakeSelector(calls_once), writer=writer, watchers=[log]) as gateway:
        question = f"What does {SECRET} get? My password is hunter22"
        messages = await converse(gateway, question, stream=stream)
    await log.aclose()
    [path] = files(tmp_path)
    found = imported_decisions(path, "files")
    assert (len(found.rows), found.continued, found.problems, found.unfinished) == (1, 1, [], 0)
    [trajectory] = found.rows
    assert trajectory.tools == [tool.openai() for tool in TOOLS]
    asked, call, result, answer = trajectory.messages
    assert asked["content"] == "What does user1@example.invalid get? My password is REDACTED-2"
    assert call["tool_calls"][0]["function"] == {"name": "read_file", "arguments": '{"path": "user1@example.invalid"}'}
    assert result["tool_call_id"] == call["tool_calls"][0]["id"] == messages[1]["tool_calls"][0]["id"]
    assert result["content"] == "To: user1@example.invalid"
    assert answer["content"] == "It is done."
    assert not any(secret in path.read_text() for secret in (SECRET, "hunter22"))


async def test_a_row_says_how_the_turn_was_decided(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    async with watched_gateway(watchers=[log]) as gateway:
        reply = await gateway.client.post(
            "/v1/chat/completions",
            json={"model": "base", "messages": [{"role": "user", "content": "hi"}], "tools": [t.openai() for t in TOOLS]},
            headers={"x-request-id": "asked-once"},
        )
        [turn] = gateway.seen.turns
    await log.aclose()
    [row] = rows(tmp_path)
    assert (row["response_id"], row["request_id"], row["toolset"], row["release"]) == (turn.id, "asked-once", "files", None)
    assert row["tools_digest"] == CATALOGUE.toolsets["files"].digest
    [decision] = row["decisions"]
    assert (decision["tool"], decision["margin"], decision["adapter"]) == ("read_file", 0.8, "base")
    assert decision["probabilities"] == {"read_file": 0.9}
    assert decision["call_id"] == row["response"]["choices"][0]["message"]["tool_calls"][0]["id"]
    assert decision["arguments"] == {"adapter": "base", "attempts": 1, "finish_reason": "stop"}
    assert row["usage"] == reply.json()["usage"]
    assert row["response"]["choices"][0]["finish_reason"] == "tool_calls"
    assert set(row["timings"]) == {"queue", "select", "arguments"}


async def test_only_turns_that_end_well_and_had_something_to_decide_are_kept(tmp_path: Path) -> None:
    class Failing(FakeWriter):
        async def generate(self, request: ArgumentsRequest) -> GeneratedArguments:
            raise ArgumentsInvalid("twice invalid")

    log = log_in(tmp_path)
    async with watched_gateway(writer=Failing(), watchers=[log]) as gateway:
        ask = [{"role": "user", "content": "hi"}]
        assert (await gateway.chat(ask)).status_code == 422
        assert (await gateway.chat(ask, tools=None)).status_code == 200
        assert (await gateway.chat(ask, tool_choice="none")).status_code == 200
    await log.aclose()
    [row] = rows(tmp_path)
    assert row["response"]["choices"][0]["message"]["content"] == "It is done."
    assert (row["toolset"], row["decisions"]) == ("files", [])


async def test_a_loop_that_was_stopped_teaches_nothing(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    call = {"id": "c1", "type": "function", "function": {"name": "read_file", "arguments": '{"path":"a"}'}}
    again = [{"role": "assistant", "content": None, "tool_calls": [call]}, {"role": "tool", "tool_call_id": "c1", "content": "x"}]
    async with watched_gateway(watchers=[log]) as gateway:
        reply = await gateway.chat([{"role": "user", "content": "hi"}, *again * 12])
    await log.aclose()
    assert reply.json()["choices"][0]["finish_reason"] == "stop"
    assert rows(tmp_path) == []


async def test_a_sample_has_whole_conversations(tmp_path: Path) -> None:
    log = log_in(tmp_path, sample=0.5)
    async with watched_gateway(selector=FakeSelector(calls_once), watchers=[log]) as gateway:
        for number in range(24):
            await converse(gateway, f"question {number}")
    await log.aclose()
    asked = [row["request"]["messages"][0]["content"] for row in rows(tmp_path)]
    assert 4 <= len(set(asked)) <= 20
    assert all(asked.count(question) == 2 for question in asked)


async def test_feedback_stands_beside_the_turns_without_secrets(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    async with watched_gateway(watchers=[log], log=log) as gateway:
        await gateway.chat([{"role": "user", "content": "hi"}])
        [turn] = gateway.seen.turns
        told = {"response_id": f"chatcmpl-{turn.id}", "correct": False, "expected_arguments": {"path": SECRET}, "comment": "no"}
        assert (await gateway.client.post("/v1/feedback", json=told)).json()["stored"] is True
    await log.aclose()
    [row] = rows(tmp_path, "feedback")
    assert row["response_id"] == rows(tmp_path)[0]["response_id"]
    assert row["call_id"] == rows(tmp_path)[0]["decisions"][0]["call_id"]
    assert (row["correct"], row["comment"], row["expected_arguments"]) == (False, "no", {"path": "user1@example.invalid"})


async def test_a_conversation_that_was_judged_wrong_is_not_imported_until_somebody_thinks_better_of_it(tmp_path: Path) -> None:
    log = log_in(tmp_path)
    async with watched_gateway(selector=FakeSelector(calls_once), watchers=[log], log=log) as gateway:
        await converse(gateway, "right")
        await converse(gateway, "wrong")
        told = {"response_id": f"chatcmpl-{gateway.seen.turns[2].id}", "correct": False}
        await gateway.client.post("/v1/feedback", json=told)
        await gateway.client.post("/v1/feedback", json={**told, "correct": True})
        await gateway.client.post("/v1/feedback", json=told)
    await log.aclose()
    found = imported_decisions(tmp_path)
    assert ([row.messages[0]["content"] for row in found.rows], found.wrong, found.problems) == (["right"], 2, [])
