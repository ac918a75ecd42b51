"""How labels become a trie of tokens, and the trie engine calls."""

from __future__ import annotations

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.selector.labels import build_trie, scoring_calls
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
    calls = scoring_calls(trie, max_ids)
    assert all(0 < len(call.token_ids) <= max_ids for call in calls)
    for node, children in trie.nodes().items():
        scored = {token for call in calls if node in call.nodes for token in call.token_ids}
        assert scored >= set(children)


@pytest.mark.parametrize("count", [2, 15, 40])
def test_a_toolset_of_usual_size_takes_one_call(count: int) -> None:
    trie = build_trie(spell(RENDERER, [f"tool_{i}" for i in range(count)]))
    assert len(scoring_calls(trie, 128)) == 1
