"""How a conversation and its calls are named in Redis: one set per conversation, one member per call seen."""

from __future__ import annotations

from services.callcache.policy import Observation
from services.shared.contracts.tools import sha256_of


def conversation_key(conversation: str) -> str:
    """The set of a conversation. Hashed, because clients may put a person's name into the id; versioned with its members."""
    return f"agentflux:callcache:v1:{sha256_of(conversation)}"


def member(seen: Observation) -> str:
    """`call_key:result_digest:call`, each of them hex."""
    return ":".join(seen)


def observation(member: str) -> Observation | None:
    """The observation of a member; None for one that somebody else put there."""
    parts = member.split(":")
    return Observation(*parts) if len(parts) == 3 else None
