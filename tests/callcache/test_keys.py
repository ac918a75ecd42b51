"""Names in Redis."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.callcache.keys import conversation_key, member, observation
from services.callcache.policy import Observation, observations
from tests.callcache.calls import made

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)


@given(st.lists(TEXT, unique=True, max_size=20))
def test_conversations_never_share_a_key(conversations):
    assert len({conversation_key(conversation) for conversation in conversations}) == len(conversations)


def test_a_key_does_not_tell_the_conversation():
    key = conversation_key("jane.doe@example.org/chat")
    assert key.startswith("agentflux:callcache:v1:")
    assert "jane" not in key
    assert len(key) == len("agentflux:callcache:v1:") + 64


@given(TEXT, TEXT, TEXT)
def test_a_member_gives_its_observation_back(call_id, arguments, result):
    (seen,) = observations([made(call_id, arguments=arguments, result=result)])
    assert observation(member(seen)) == seen
    assert len(member(seen)) == 3 * 64 + 2


def test_a_member_that_is_not_ours_is_no_observation():
    assert observation("something else") is None
    assert observation("a:b:c") == Observation("a", "b", "c")
