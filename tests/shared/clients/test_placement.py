"""Where requests go: stable where it pays, spread where it has to be."""

from __future__ import annotations

import math
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.shared.clients.placement import (
    BATCH,
    BOUND,
    Placement,
    conversation_of_messages,
    conversation_of_prompt,
    homes_by_share,
    load_bound,
    ranked,
)
from services.shared.contracts.prompts import PromptRenderer
from tests.bench.placement import simulate, traffic
from tests.fakes import tool

ENGINES = [f"http://engine-{number}:8000" for number in range(4)]
SELECTOR = "filesystem.select--0123456789ab"

engine_lists = st.lists(st.text(min_size=1), min_size=2, max_size=8, unique=True)
some_shares = st.dictionaries(st.sampled_from([f"files.tool_{n}--0123456789ab" for n in range(20)]), st.floats(0.001, 0.2))


def adapters(count: int) -> list[str]:
    return [f"filesystem.tool_{number}--{number:012x}" for number in range(count)]


def conversations(count: int) -> list[bytes]:
    return [number.to_bytes(4, "big") for number in range(count)]


def idle(engines: list[str] = ENGINES) -> dict[str, int]:
    return dict.fromkeys(engines, 0)


# --- Rendezvous ---


@given(engine_lists, st.binary(), st.data())
def test_an_engine_that_leaves_moves_only_what_it_had(engines: list[str], key: bytes, data: st.DataObject):
    leaver = data.draw(st.sampled_from(engines))
    stay = [engine for engine in engines if engine != leaver]
    assert ranked(stay, key) == [engine for engine in ranked(engines, key) if engine != leaver]


@given(engine_lists, st.binary())
def test_the_order_in_which_engines_are_written_down_does_not_matter(engines: list[str], key: bytes):
    assert ranked(engines, key) == ranked(reversed(engines), key)


def test_an_engine_that_is_down_moves_only_its_own_conversations_and_gets_them_back():
    placement = Placement(ENGINES)
    before = {c: placement.place(idle(), "base", c) for c in conversations(400)}
    left = {c: placement.place(idle(ENGINES[1:]), "base", c) for c in conversations(400)}
    assert {c for c in before if before[c] != left[c]} == {c for c in before if before[c] == ENGINES[0]}
    assert {c: placement.place(idle(), "base", c) for c in conversations(400)} == before


# --- Bounds ---


@given(st.lists(st.integers(0, 50), min_size=1, max_size=8), st.integers(0, 99), st.binary())
def test_no_engine_ever_gets_more_than_its_bound(inflight: list[int], number: int, conversation: bytes):
    loads = {f"engine-{index}": load for index, load in enumerate(inflight)}
    for model in ("base", SELECTOR):
        chosen = Placement(list(loads)).place(loads, model, conversation)
        total = sum(inflight) + 1
        assert loads[chosen] + 1 <= max(BATCH, math.ceil(BOUND * total / len(loads)))


@given(st.integers(1, 1000), st.integers(1, 50))
def test_the_bound_always_leaves_room_for_one_more(requests: int, engines: int):
    assert load_bound(requests, engines) * engines >= requests


def test_while_little_is_in_flight_a_conversation_is_not_spread():
    placement = Placement(ENGINES)
    loads = idle()
    for _ in range(BATCH):
        loads[placement.place(loads, "base", b"one")] += 1
    assert sorted(loads.values()) == [0, 0, 0, BATCH]
    assert loads[placement.place(loads, "base", b"one")] == 0


# --- Adapters ---


@given(some_shares)
def test_every_adapter_has_as_many_homes_as_its_share_fills_and_all_others_to_help_out(shares: dict[str, float]):
    for model, homes in homes_by_share(shares, ENGINES).items():
        assert len(homes.near) == math.ceil(shares[model] * len(ENGINES))
        assert sorted(homes.near + homes.rest) == ENGINES


@pytest.mark.parametrize("count", [4, 13, 14, 16, 40])
def test_homes_are_shared_out_evenly(count: int):
    homes = homes_by_share(dict.fromkeys(adapters(count), 1 / count), ENGINES)
    lodgers = Counter(engine for home in homes.values() for engine in home.near)
    assert max(lodgers.values()) <= math.ceil(count / 4) + 1
    assert sum(lodgers.values()) == count


def test_a_rare_adapter_stays_on_one_engine_and_a_popular_one_spreads_by_conversation():
    placement = Placement(ENGINES)
    rare, popular = adapters(2)
    seen: dict[str, set[str]] = {rare: set(), popular: set()}
    for number, conversation in enumerate(conversations(2000)):
        model = popular if number % 20 else rare
        chosen = placement.place(idle(), model, conversation)
        if number > 1000:
            seen[model].add(chosen)
    assert (len(seen[rare]), len(seen[popular])) == (1, 4)
    assert len({placement.place(idle(), popular, b"the same") for _ in range(100)}) == 1


def test_where_one_toolset_has_all_the_traffic_its_conversations_fill_all_engines_alike():
    placement = Placement(ENGINES)
    for _ in range(1000):
        placement.place(idle(), SELECTOR, b"warm-up")
    counts = Counter(placement.place(idle(), SELECTOR, conversation) for conversation in conversations(1000))
    assert min(counts.values()) > 200


def test_adapters_that_nobody_asks_for_any_more_take_no_room():
    placement = Placement(ENGINES)
    old, new = adapters(28)[:14], adapters(28)[14:]
    for model in (*old * 200, *new * 200):
        placement.place(idle(), model, b"")
    lodgers = Counter(placement.place(idle(), model, b"") for model in new)
    assert max(lodgers.values()) <= 4


def test_adapters_are_loaded_70_percent_less_often_than_round_robin_and_engines_are_loaded_alike():
    arrivals = traffic(seed=1, requests=3000)
    blind, ours = simulate("round robin", arrivals), simulate("placement", arrivals)
    assert ours.adapter_loads < 0.3 * blind.adapter_loads
    assert ours.imbalance < 1.3
    assert ours.kv_hits > 0.8 > blind.kv_hits


# --- What a conversation is ---


def prompts(renderer: PromptRenderer, question: str) -> list[list[int]]:
    """Of both roles, over three turns of one conversation."""
    tools = [tool("read_file", path={"type": "string"}), tool("list_directory", path={"type": "string"})]
    messages: list[dict[str, object]] = [{"role": "user", "content": question}]
    made = []
    for turn in range(3):
        prefix = renderer.prefix(messages, tools)
        made += [renderer.name_prompt(prefix), renderer.arguments_prompt(prefix, "read_file")]
        function = {"name": "read_file", "arguments": '{"path":"a"}'}
        messages += [
            {"role": "assistant", "content": None, "tool_calls": [{"id": f"{turn}", "type": "function", "function": function}]},
            {"role": "tool", "tool_call_id": f"{turn}", "content": "done"},
        ]
    return made


def test_all_prompts_of_a_conversation_have_one_key_and_another_conversation_another(renderer: PromptRenderer):
    first = {conversation_of_prompt(prompt) for prompt in prompts(renderer, "Read a")}
    second = {conversation_of_prompt(prompt) for prompt in prompts(renderer, "Read b")}
    assert len(first) == len(second) == 1
    assert first != second


def test_a_beginning_of_text_before_the_first_turn_does_not_matter(renderer: PromptRenderer):
    begun = {conversation_of_prompt([9999, *prompt]) for prompt in prompts(renderer, "Read a")}
    assert len(begun) == 1
    assert begun != {conversation_of_prompt([9999, *prompt]) for prompt in prompts(renderer, "Read b")}


def test_a_prompt_without_turns_is_known_by_its_beginning():
    assert conversation_of_prompt(list(range(300))) == conversation_of_prompt(list(range(400)))
    assert conversation_of_prompt([1, 2]) != conversation_of_prompt([1, 3])
    assert conversation_of_prompt([])


def test_a_chat_is_known_by_its_messages_up_to_the_first_of_the_user():
    system, first = {"role": "system", "content": "Be brief \ud83d"}, {"role": "user", "content": "Hello"}
    later = [system, first, {"role": "assistant", "content": "Hi"}, {"role": "user", "content": "Bye"}]
    assert conversation_of_messages([system, first]) == conversation_of_messages(later)
    assert conversation_of_messages([system, first]) != conversation_of_messages([system, later[-1]])
    assert conversation_of_messages([])
