"""What counts as a repeated call, and what the ladder makes of it."""

from __future__ import annotations

import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.callcache.policy import Observation, observations, repeats, standings, surplus
from services.shared.contracts.calls import Ladder, MadeCall
from tests.callcache.calls import made, repeated


def count(calls: Sequence[MadeCall], remembered: Sequence[MadeCall] = ()) -> list[int]:
    """Repeats of each distinct call of `calls`, in the order of their first appearance."""
    return list(repeats(observations(calls), set(observations(remembered))).values())


# Conversations over few tools, arguments and results, so that calls do repeat.
CALLS = st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from(["{}", '{"x":1}']), st.sampled_from("rst")), max_size=25).map(
    lambda calls: [
        MadeCall(call_id=f"call_{number}", tool=tool, arguments=arguments, result=result)
        for number, (tool, arguments, result) in enumerate(calls)
    ]
)


def test_identical_calls_with_identical_results_are_counted():
    assert count(repeated(4)) == [4]


def test_another_result_starts_anew():
    assert count([*repeated(4), made("call_9", result="hello")]) == [1]


def test_another_argument_is_another_call():
    assert count([made("1"), made("2", arguments='{"path":"b.txt"}'), made("3")]) == [2, 1]


def test_two_spellings_of_the_same_arguments_are_one_call():
    assert count([made("1", arguments='{"a":1,"b":[2]}'), made("2", arguments='{ "b": [2], "a": 1 }')]) == [2]


def test_calls_in_between_do_not_hide_a_loop():
    """Six calls in rotation escaped a guard that kept the last five."""
    rotation = [made(f"call_{number}", arguments=json.dumps({"path": number % 6})) for number in range(60)]
    assert count(rotation) == [10] * 6


def test_a_client_that_trims_its_history_is_still_counted():
    everything = repeated(7)
    assert count(everything[-1:], remembered=everything) == [7]


def test_a_client_with_one_id_for_all_calls_is_counted_by_its_history():
    assert count([made("xxx")] * 5) == [5]
    assert count([*[made("xxx")] * 5, made("xxx", result="hello"), made("xxx")]) == [1]


def test_results_that_alternate_are_counted_each():
    """Two states in turns are a loop too, although no two neighbours are alike."""
    assert count([made(f"call_{number}", result="on" if number % 2 else "off") for number in range(8)]) == [4]


@given(CALLS, st.integers(min_value=0))
def test_what_a_client_shows_twice_counts_once(calls, start):
    for tail in (calls, calls[start % (len(calls) + 1) :]):
        assert count(tail, remembered=[*calls, *calls]) == count(tail, remembered=calls)


@given(CALLS, st.randoms(use_true_random=False))
def test_the_order_in_which_requests_arrived_is_irrelevant(calls, dice):
    shuffled = dice.sample(calls, len(calls))
    assert count(calls, remembered=shuffled) == count(calls, remembered=calls) == count(calls)


@given(CALLS, st.integers(min_value=0))
def test_a_trimmed_history_stands_where_the_whole_one_does(calls, start):
    shown = observations(calls[start % (len(calls) + 1) :])
    whole = repeats(observations(calls), ())
    assert repeats(shown, set(observations(calls))) == {key: whole[key] for key in repeats(shown, ())}


@given(CALLS, CALLS)
def test_remembering_more_never_counts_less(calls, others):
    assert all(more >= less for more, less in zip(count(calls, remembered=others), count(calls), strict=True))


@given(CALLS)
def test_one_id_for_all_calls_gives_the_run_at_the_end(calls):
    alike = [call.model_copy(update={"call_id": "xxx"}) for call in calls]
    for key, repeated_times in repeats(observations(alike), ()).items():
        results = [call.result for call in alike if call.call_key == key]
        run = next((i for i, result in enumerate(reversed(results)) if result != results[-1]), len(results))
        assert repeated_times == run


@pytest.mark.parametrize(
    ("times", "step"),
    [(1, None), (2, None), (3, "warn"), (4, "warn"), (5, "withdraw"), (9, "withdraw"), (10, "block"), (99, "block")],
)
def test_the_ladder(times, step):
    found = standings({"key": times}, {"key": "read_file"}, Ladder())
    assert [(standing.tool, standing.repeats, standing.step) for standing in found] == (
        [("read_file", times, step)] if step else []
    )


def test_a_step_that_is_off_is_never_taken():
    assert standings({"key": 100}, {"key": "read_file"}, Ladder(warn=0, withdraw=0, block=0)) == []
    assert standings({"key": 100}, {"key": "read_file"}, Ladder(block=0))[0].step == "withdraw"


@given(CALLS, CALLS, st.integers(min_value=1, max_value=30))
def test_forgetting_the_surplus_leaves_the_limit_and_the_calls_that_matter(shown_calls, others, limit):
    shown = observations(shown_calls)
    remembered = {*shown, *(seen._replace(call="other" + seen.call) for seen in observations(others))}
    kept = remembered - set(surplus(shown, remembered, limit))
    assert len(kept) == min(limit, len(remembered))
    last = {seen.call_key: seen.result_digest for seen in shown}
    current = {seen for seen in remembered if last.get(seen.call_key) == seen.result_digest}
    assert current <= kept or kept <= current


def test_observations_hold_digests_only():
    (seen,) = observations([made("call_secret", arguments='{"password":"hunter2"}', result="secret")])
    assert isinstance(seen, Observation)
    assert all(len(part) == 64 and set(part) <= set("0123456789abcdef") for part in seen)
