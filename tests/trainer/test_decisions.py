"""Live traffic: which records are one conversation, and which may not teach."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from services.shared.contracts.tools import JsonObject
from tests.trainer.rows_of import TOOLS, call, result, turn
from trainer.decisions import Imported
from trainer.gates import first_flaw
from trainer.importing import imported_decisions

SHOWN = [tool.openai() for tool in TOOLS]


def user(text: str) -> JsonObject:
    return {"role": "user", "content": text}


def answer(text: str) -> JsonObject:
    return {"role": "assistant", "content": text}


CALL = turn(call("read_file", path="a.txt"))
# As clients send it back.
ECHO = {**CALL, "content": "", "refusal": None}
FULL = [user("Show me a.txt"), ECHO, result("hello"), answer("There."), user("Thanks!"), answer("Welcome.")]


def record(*messages: JsonObject, correct: bool | None = None, toolset: str = "files") -> JsonObject:
    """The last message is the response."""
    feedback = None if correct is None else {"correct": correct}
    request = {"model": "m", "messages": list(messages[:-1]), "tools": SHOWN, "temperature": 0}
    response = {"choices": [{"index": 0, "message": messages[-1]}]}
    return {"time": "2026-01-01T00:00:00Z", "request": request, "response": response, "toolset": toolset, "feedback": feedback}


def steps(**correct: bool) -> list[JsonObject]:
    """The three records of FULL; `call`, `there` and `welcome` are their feedback."""
    ends = {"call": [FULL[0], CALL], "there": FULL[:4], "welcome": FULL}
    return [record(*messages, correct=correct.get(name)) for name, messages in ends.items()]


def read(tmp_path: Path, *records: Any, toolset: str | None = None) -> Imported:
    path = tmp_path / "log.jsonl"
    path.write_text("\n".join(one if isinstance(one, str) else json.dumps(one) for one in records) + "\n")
    return imported_decisions(path, toolset)


def told(found: Imported) -> list[str]:
    return sorted(" / ".join(str(m["content"] or "call") for m in row.messages) for row in found.rows)


def test_records_of_one_conversation_are_one_trajectory(tmp_path: Path) -> None:
    for seed in range(3):
        records = steps()
        random.Random(seed).shuffle(records)
        found = read(tmp_path, *records)
        assert told(found) == ["Show me a.txt / call / hello / There. / Thanks! / Welcome."]
        assert (found.continued, found.rows[0].source, found.rows[0].kind) == (2, "decisions", "read_file")
        assert first_flaw(found.rows[0]) is None


def test_a_branch_is_a_conversation_of_its_own(tmp_path: Path) -> None:
    found = read(
        tmp_path, *steps(), record(*FULL[:4], user("And now?"), answer("Nothing.")), record(user("Thanks!"), answer("Sure."))
    )
    assert [text.rpartition(" / ")[2] for text in told(found)] == ["Nothing.", "Welcome.", "Sure."]


def test_what_was_judged_wrong_and_what_followed_from_it_is_left_out(tmp_path: Path) -> None:
    assert told(read(tmp_path, *steps(welcome=False))) == ["Show me a.txt / call / hello / There."]
    assert told(read(tmp_path, *steps(call=False))) == []
    assert read(tmp_path, *steps(call=False)).wrong == 3
    assert len(read(tmp_path, *steps(call=True, there=True, welcome=True)).rows) == 1


def test_a_conversation_ends_with_its_answer(tmp_path: Path) -> None:
    open_end = record(*FULL[:4], user("And b.txt?"), turn(call("read_file", "call_2", path="b.txt")))
    assert told(read(tmp_path, open_end)) == ["Show me a.txt / call / hello / There."]
    found = read(tmp_path, steps()[0])
    assert (found.rows, found.unfinished) == ([], 1)


def test_a_record_that_was_logged_twice_counts_once(tmp_path: Path) -> None:
    assert len(read(tmp_path, *steps(), *steps()).rows) == 1


def test_only_the_toolset_that_was_asked_for(tmp_path: Path) -> None:
    other = record(user("Hi"), answer("Hello."), toolset="memory")
    assert told(read(tmp_path, *steps(), other, toolset="memory")) == ["Hi / Hello."]


def test_secrets_are_counted_and_nowhere_in_what_is_written(tmp_path: Path) -> None:
    asked = user("mail ann@corp.example: my password is hunter22")
    found = read(tmp_path, record(asked, answer("I told ann@corp.example.")))
    text = found.rows[0].model_dump_json()
    assert "ann@corp" not in text
    assert "hunter22" not in text
    assert found.report()["redacted"] == {"email": 1, "password": 1}


def test_what_cannot_be_read_is_named_without_quoting_it(tmp_path: Path) -> None:
    found = read(tmp_path, '{"cut off hunter22', {"request": {"messages": ["hunter22"]}}, record(user("Hi"), answer("Hello.")))
    assert len(found.rows) == 1
    assert [problem.partition(".jsonl")[2] for problem in found.problems] == [":1: ValidationError", ":2: ValidationError"]
