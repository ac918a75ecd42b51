"""Which calls have failed alike so often that they are not made again."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.gateway.failures import failing, is_failure, likeness
from services.gateway.loops import made_calls, since_the_user_spoke
from tests.gateway.test_loops import READ, history

GONE = "ENOENT: no such file or directory, scandir '/work/tools'"
LISTED = ("list_directory", '{"path": "tools"}', GONE)
SLASHED = ("list_directory", '{"path": "tools/"}', GONE)
NEW = ("write_file", '{"path": "tools"}', "Wrote 3 bytes")


def stopped(*steps: tuple[str, str, str], most: int = 2) -> set[str]:
    return set(failing(made_calls(history(*steps)), most))


def test_one_retry_of_a_failed_call_is_free_and_the_second_is_not() -> None:
    assert stopped(READ) == set()
    assert stopped(READ, READ) == {likeness(*READ[:2])}


def test_a_spelling_that_changes_nothing_is_no_other_call() -> None:
    assert stopped(LISTED, SLASHED) == {likeness(*LISTED[:2])} == {likeness(*SLASHED[:2])}


def test_what_a_weak_model_did_is_stopped_before_its_third_call() -> None:
    trace = [LISTED, SLASHED, SLASHED, SLASHED, LISTED]
    assert [likeness(*step[:2]) in stopped(*trace[:made]) for made, step in enumerate(trace)] == [False, False, True, True, True]


@pytest.mark.parametrize(
    "other",
    [
        ("list_directory", '{"path": "docs"}', GONE),
        ("list_directory", '{"path": "tools"}', "EACCES: permission denied"),
        ("read_file", '{"path": "tools"}', GONE),
    ],
)
def test_another_call_or_another_error_is_not_the_same_failure(other: tuple[str, str, str]) -> None:
    assert stopped(LISTED, other) == set()


@pytest.mark.parametrize(("one", "two"), [('{"n": 1}', '{"n": -1}'), ('{"n": 15}', '{"n": 1.5}'), ('{"q": "/"}', '{"q": "."}')])
def test_numbers_and_bare_signs_are_told_apart(one: str, two: str) -> None:
    assert likeness("t", one) != likeness("t", two)


def test_after_something_new_the_same_error_counts_anew() -> None:
    assert stopped(LISTED, NEW, LISTED) == set()
    assert stopped(LISTED, NEW, LISTED, NEW, LISTED) != set(), "the second time it was nothing new"


def test_alternating_failures_are_both_stopped() -> None:
    assert len(stopped(READ, LISTED, READ, LISTED)) == 2


def test_the_user_who_speaks_starts_the_count_anew() -> None:
    messages = [*history(READ, READ), {"role": "user", "content": "It is there now, try again."}]
    assert failing(made_calls(since_the_user_spoke(messages)), 2) == {}


def test_zero_turns_it_off() -> None:
    assert stopped(*[READ] * 9, most=0) == set()


@given(st.lists(st.sampled_from(["Error: ", "still running ", "", "HTTP 503 error "]), min_size=1, max_size=30))
def test_polling_whose_results_change_is_never_stopped(kinds: list[str]) -> None:
    assert stopped(*[("status", "{}", f"{kind}{index}") for index, kind in enumerate(kinds)]) == set()


def test_a_thousand_polling_traces_are_never_stopped() -> None:
    dice = random.Random(0)
    for _ in range(1000):
        said = ["Error: not ready", "Failed", "pending", "running"]
        polled = [("status", f'{{"job": {i % 2}}}', f"{dice.choice(said)} {i} {dice.random()}") for i in range(30)]
        assert stopped(*polled) == set()


def test_polling_that_gives_the_same_result_for_a_while_is_left_to_the_ladder() -> None:
    assert stopped(*[("status", "{}", "pending")] * 9) == set()


@pytest.mark.parametrize(
    "result",
    [
        GONE, "Error: ENOENT: no such file", "Error executing tool read: x", "An error occurred while running the tool.",
        '"EPERM"',
        "Access denied - path outside allowed directories", "MCP error -32602: Invalid arguments", "1 validation error for Path",
        "Traceback (most recent call last):\n …", "File not found: x", "Parent directory does not exist: /a",
        "HTTP 404 Not Found",
        "ValueError: no", '{"error": "quota"}', '{"isError": true, "content": []}', '{"status": "failed"}', '{"ok": false}',
        "Could not connect", "/work/a.txt: No such file or directory", "Error:\nrate limit",
    ],
)  # fmt: skip
def test_results_that_are_errors(result: str) -> None:
    assert is_failure(result)


@pytest.mark.parametrize(
    "result",
    [
        "", "[]", "[FILE] error.log", "0 failed, 3 passed", "No errors", "No error", "without error", "failed: 0, running: 3",
        '{"error": null, "data": 1}', '{"status": "running"}', "{not json, error", "pending",
        "The weather is fine in Berlin today, error or not",
        "total 3\nError: in the second line",
    ],
)  # fmt: skip
def test_results_that_are_none(result: str) -> None:
    assert not is_failure(result)


@pytest.mark.parametrize("hostile", ["." * 100_000, "a" * 100_000, "a." * 50_000, " " * 100_000, "{" * 100_000, "[" * 100_000])
def test_hostile_results_and_arguments_are_read_like_others(hostile: str) -> None:
    assert not is_failure(hostile)
    assert likeness("t", hostile) == likeness("t", hostile)


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e400"])
def test_a_number_that_json_does_not_have_fails_like_others(number: str) -> None:
    failed = ("seek", f'{{"offset": {number}}}', "Error: out of range")
    assert stopped(failed, failed) == {likeness(*failed[:2])}
