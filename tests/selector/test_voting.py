"""How votes are counted."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.selector.labels import build_trie
from services.selector.voting import entropy, exact_vote, is_decided, overruled, sampled_vote
from services.shared.contracts.prompts import LabelTokens

LABELS = ["read_file", "write_file", "summarize"]
samples = st.lists(st.sampled_from([*LABELS, "nonsense", None]), max_size=10)


def test_the_majority_wins_and_the_margin_is_its_lead() -> None:
    vote = sampled_vote(LABELS, ["write_file"] * 7 + ["read_file"] * 3)
    assert vote is not None
    assert (vote.winner, vote.tally) == ("write_file", {"write_file": 7, "read_file": 3})
    assert vote.margin == pytest.approx(0.4)


def test_a_tie_goes_to_the_tool_listed_first() -> None:
    vote = sampled_vote(LABELS, ["write_file", "read_file"] * 5)
    assert vote is not None
    assert vote.winner == "read_file"


def test_samples_that_name_no_candidate_are_dropped_and_show_in_the_valid_mass() -> None:
    vote = sampled_vote(LABELS, ["read_file", "rm_rf", None, "read_file"])
    assert vote is not None
    assert vote.probabilities == {"read_file": 1.0, "write_file": 0.0, "summarize": 0.0}
    assert vote.valid_mass == 0.5


def test_no_valid_sample_is_no_vote() -> None:
    assert sampled_vote(LABELS, [None, "nonsense"]) is None


@given(samples, st.lists(st.sampled_from([*LABELS, None]), max_size=10))
def test_a_decided_vote_is_not_changed_by_the_samples_still_to_come(drawn: list[str | None], rest: list[str | None]) -> None:
    if is_decided(LABELS, drawn, len(rest)):
        before, after = sampled_vote(LABELS, drawn), sampled_vote(LABELS, drawn + rest)
        assert before is not None
        assert after is not None
        assert after.winner == before.winner


def test_a_likely_beginning_does_not_help_a_name_whose_end_is_unlikely() -> None:
    # Token 1 begins `ab` alone; tokens 2 and 3 make `cd`. Greedy decoding would start with 1 and be trapped.
    trie = build_trie([LabelTokens("ab", [1, 9]), LabelTokens("cd", [2, 3])])
    vote = exact_vote(trie, {(): {1: math.log(0.6), 2: math.log(0.4)}, (1,): {9: math.log(0.01)}, (2,): {3: math.log(0.9)}})
    assert vote.winner == "cd"
    assert vote.probabilities["cd"] == pytest.approx(0.36 / 0.366)
    assert vote.valid_mass == pytest.approx(0.366)


def test_names_that_are_all_very_unlikely_still_have_probabilities() -> None:
    trie = build_trie([LabelTokens("a", [1]), LabelTokens("b", [2])])
    vote = exact_vote(trie, {(): {1: -2000.0, 2: -2001.0}})
    assert math.fsum(vote.probabilities.values()) == pytest.approx(1.0)
    assert vote.probabilities["a"] == pytest.approx(1 / (1 + math.exp(-1)))


def test_an_answer_below_the_threshold_gives_way_to_the_likeliest_tool() -> None:
    vote = sampled_vote(LABELS, ["summarize"] * 7 + ["write_file"] * 2 + ["read_file"])
    assert vote is not None
    assert overruled(vote, "summarize", 0.7) == vote
    tool = overruled(vote, "summarize", 0.71)
    assert (tool.winner, tool.probabilities) == ("write_file", vote.probabilities)
    assert tool.margin == pytest.approx(-0.5)


def test_the_threshold_leaves_tools_and_lone_answers_alone() -> None:
    tool = sampled_vote(LABELS, ["read_file"])
    alone = sampled_vote(["summarize"], ["summarize"])
    assert tool is not None
    assert alone is not None
    assert overruled(tool, "summarize", 1.0) == tool
    assert overruled(alone, "summarize", 1.0) == alone


def test_entropy_is_a_share_of_the_largest_possible_one() -> None:
    assert entropy([1.0]) == entropy([]) == 0.0
    assert entropy([1.0, 0.0, 0.0]) == 0.0
    assert entropy([0.25] * 4) == pytest.approx(1.0)
    assert entropy([0.5, 0.5, 0.0, 0.0]) == pytest.approx(0.5)
