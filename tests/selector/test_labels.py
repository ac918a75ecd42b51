"""How labels become a trie of tokens, and the trie engine calls."""

from __future__ import annotations

import math
import random
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.selector.labels import (
    NEGLIGIBLE,
    NODES_PER_CALL,
    LabelTrie,
    Node,
    build_trie,
    next_wave,
    path_logprob,
    scoring_calls,
)
from services.shared.contracts.prompts import LabelTokens, PromptRenderer
from tests.fakes import tool, toy_renderer

names = st.lists(st.text(string.ascii_lowercase + '_-.é"\\', min_size=1, max_size=12), min_size=2, max_size=20, unique=True)
RENDERER = toy_renderer()


def spell(renderer: PromptRenderer, labels: list[str]) -> list[LabelTokens]:
    prefix = renderer.prefix([{"role": "user", "content": "hi"}], [tool("read_file")])
    return renderer.label_tokens(prefix, labels)


def test_what_all_labels_share_is_read_once() -> None:
    trie = build_trie(spell(RENDERER, ["read_file", "read_media"]))
    nodes = trie.nodes()
    assert len(nodes[()]) == 2, "the first node after the shared tokens is where the labels part"


def test_a_name_that_begins_another_one_ends_in_a_leaf_of_its_own() -> None:
    trie = build_trie(spell(RENDERER, ["read_file", "read_file_v2"]))
    short, long = trie.paths["read_file"], trie.paths["read_file_v2"]
    assert long[: len(short)] != short


@settings(max_examples=50)
@given(names)
def test_no_path_begins_another_one_and_every_path_is_its_name(labels: list[str]) -> None:
    trie = build_trie(spell(RENDERER, labels))
    paths = list(trie.paths.values())
    assert len(set(paths)) == len(labels)
    for path in paths:
        assert path
        assert not any(other != path and other[: len(path)] == path for other in paths)


@settings(max_examples=50)
@given(names, st.integers(1, 8))
def test_the_calls_together_score_every_child_of_every_node_within_the_limit(labels: list[str], max_ids: int) -> None:
    trie = build_trie(spell(RENDERER, labels))
    calls = scoring_calls(trie, trie.nodes(), max_ids)
    assert all(0 < len(call.token_ids) <= max_ids for call in calls)
    assert all(0 < len(call.nodes) <= NODES_PER_CALL for call in calls)
    for node, children in trie.nodes().items():
        scored = {token for call in calls if node in call.nodes for token in call.token_ids}
        assert scored >= set(children)


@pytest.mark.parametrize("count", [2, 15, 40])
def test_a_toolset_of_usual_size_takes_one_call(count: int) -> None:
    trie = build_trie(spell(RENDERER, [f"tool_{i}" for i in range(count)]))
    assert len(scoring_calls(trie, trie.nodes(), 128)) == 1


def peaked(trie: LabelTrie, favourite: str, share: float) -> dict[Node, dict[int, float]]:
    """A model that goes on towards `favourite` with that probability at every node, and spreads the rest."""
    path = trie.paths[favourite]
    scores: dict[Node, dict[int, float]] = {}
    for node, children in trie.nodes().items():
        on_the_way = {child for child in children if (*node, child) == path[: len(node) + 1]}
        rest = (1 - share * bool(on_the_way)) / (len(children) + 1)
        scores[node] = {child: math.log(share if child in on_the_way else rest) for child in children}
    return scores


def waves(trie: LabelTrie, model: dict[Node, dict[int, float]]) -> list[list[Node]]:
    read: dict[Node, dict[int, float]] = {}
    found = []
    while wave := next_wave(trie, read, wave=len(found)):
        found.append(wave)
        read |= {node: model[node] for node in wave}
    return found


FILE_TOOLS = ["read_file", "read_media_file", "read_multiple_files", "write_file", "edit_file", "list_directory", "move_file"]


def test_a_model_that_is_sure_is_asked_about_a_few_nodes_in_two_waves() -> None:
    trie = build_trie(spell(RENDERER, FILE_TOOLS))
    asked = waves(trie, peaked(trie, "read_media_file", 0.99999))
    assert asked[0] == [()]
    assert len(asked) == 2
    assert sum(map(len, asked)) < len(trie.nodes()) / 2


def test_a_model_that_is_not_is_asked_about_all_of_them_in_four() -> None:
    trie = build_trie(spell(RENDERER, FILE_TOOLS))
    even = {node: dict.fromkeys(children, -math.log(len(children))) for node, children in trie.nodes().items()}
    asked = waves(trie, even)
    assert sorted(node for wave in asked for node in wave) == sorted(trie.nodes())
    assert len(asked) <= 4


@settings(max_examples=50)
@given(names, st.integers(0, 2**32), st.floats(0.1, 8))
def test_what_stays_unread_is_negligible_and_nothing_is_read_twice(labels: list[str], seed: int, spread: float) -> None:
    trie = build_trie(spell(RENDERER, labels))
    dice = random.Random(seed)
    model = {}
    for node, children in trie.nodes().items():
        weights = [math.exp(dice.gauss(0, spread)) for _ in [*children, "all other tokens"]]
        model[node] = {child: math.log(weight / sum(weights)) for child, weight in zip(children, weights, strict=False)}
    asked = waves(trie, model)
    read = [node for wave in asked for node in wave]
    assert len(read) == len(set(read))
    known = {node: model[node] for node in read}
    totals = {label: path_logprob(path, model) or 0.0 for label, path in trie.paths.items()}
    missed = [total for label, total in totals.items() if path_logprob(trie.paths[label], known) is None]
    largest = max(totals.values())
    mass = math.fsum(math.exp(total - largest) for total in totals.values())
    assert math.fsum(math.exp(total - largest) for total in missed) <= NEGLIGIBLE * mass
