"""When an engine is asked, when not, when again, and how often a request is tried twice."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared.clients.health import (
    INTERVAL_S,
    LONGEST_REST_S,
    LOOK_TIMEOUT_S,
    PATIENCE,
    REQUESTS_SAVED,
    SHORTEST_REST_S,
    Health,
    RetryBudget,
    to_be_asked,
)


def down(now: float = 0.0) -> Health:
    health = Health()
    assert health.fails("refused", now)
    return health


def on_trial() -> Health:
    health = down()
    health.goes_on_trial()
    return health


def test_a_refused_connection_takes_an_engine_down_at_once():
    assert down().state == "down"


@pytest.mark.parametrize("evidence", ["lost", "silent"])
def test_one_lost_connection_or_silence_is_no_proof_and_two_in_a_row_are(evidence):
    health = Health()
    assert not health.fails(evidence, 0)
    assert health.state == "up"
    assert health.fails(evidence, 1)
    assert health.state == "down"


def test_a_reply_in_between_makes_a_lost_connection_forgotten_and_an_answered_look_a_silence():
    health = Health()
    for _ in range(5):
        assert not health.fails("lost", 0)
        health.replies()
        assert not health.fails("silent", 0)
        health.answers()


def test_an_engine_that_lives_but_drops_every_request_goes_down():
    health = Health()
    health.fails("lost", 0)
    health.answers()
    assert health.fails("lost", 0)


def test_a_dead_engine_is_found_within_three_seconds():
    assert INTERVAL_S + PATIENCE * LOOK_TIMEOUT_S <= 3


def test_what_is_down_goes_down_no_second_time():
    assert not down().fails("refused", 1)


def test_it_returns_after_a_rest_by_a_trial_of_one_reply():
    health = down(now=100)
    assert not health.is_rested(100 + SHORTEST_REST_S / 2)
    assert health.is_rested(100 + SHORTEST_REST_S)
    health.replies()  # to a request of before
    assert health.state == "down"
    health.goes_on_trial()
    health.replies()
    assert health.state == "up"


def test_each_failed_return_doubles_the_rest_up_to_a_limit_and_a_reply_forgives():
    health, rests = Health(), []
    for _ in range(8):
        assert health.fails("refused", 0)
        rests.append(next(second for second in range(1, 100) if health.is_rested(second)))
        health.goes_on_trial()
    assert rests == [1, 2, 4, 8, 16, LONGEST_REST_S, LONGEST_REST_S, LONGEST_REST_S]
    health.replies()
    health.fails("refused", 0)
    assert health.is_rested(SHORTEST_REST_S)


def test_a_trial_ends_with_the_first_thing_against_the_engine():
    assert on_trial().fails("lost", 0)


# --- Who is asked ---


def test_engines_that_are_down_are_left_out():
    assert to_be_asked({"a": Health(), "b": down(), "c": Health()}) == ["a", "c"]


def test_an_engine_on_trial_gets_one_request_at_a_time():
    trial = on_trial()
    assert to_be_asked({"a": Health(), "b": trial}) == ["a", "b"]
    trial.inflight = 1
    assert to_be_asked({"a": Health(), "b": trial}) == ["a"]


def test_an_engine_on_trial_gets_everything_while_no_other_is_up():
    trial = on_trial()
    trial.inflight = 7
    assert to_be_asked({"a": down(), "b": trial}) == ["b"]


def test_the_last_one_standing_is_never_given_up():
    assert to_be_asked({"a": down()}) == ["a"]
    assert to_be_asked({"a": down(), "b": down()}) == ["a", "b"]


# --- The budget ---


@given(st.lists(st.booleans(), max_size=3000))
def test_retries_never_add_more_than_a_tenth(wants_a_retry: list[bool]):
    budget, retries = RetryBudget(), 0
    for requests, wanted in enumerate(wants_a_retry, start=1):
        budget.deposit()
        retries += wanted and budget.withdraw()
        assert retries <= requests / 10


def test_what_a_quiet_time_saves_up_is_limited():
    budget = RetryBudget()
    for _ in range(100_000):
        budget.deposit()
    assert sum(budget.withdraw() for _ in range(1000)) == REQUESTS_SAVED / 10
