"""Whose calls may meet in one server: the scope of a toolset, and the key under which its servers are found."""

from __future__ import annotations

from dataclasses import dataclass

from services.sandbox.toolsets import Toolset


@dataclass(frozen=True)
class SessionKey:
    """Calls with equal keys share a server, unless they are `single`: then each has one of its own."""

    toolset: str
    version: str
    tenant: str = ""
    session_id: str = ""
    single: bool = False


def session_key(toolset: Toolset, tenant: str, session_id: str) -> SessionKey:
    """The key of a call. Nobody knows whose a call without a session is, so in scope `session` it shares with nobody."""
    match toolset.scope:
        case "shared":
            return SessionKey(toolset.name, toolset.version)
        case "tenant":
            return SessionKey(toolset.name, toolset.version, tenant)
        case "session" if session_id:
            return SessionKey(toolset.name, toolset.version, tenant, session_id)
        case _:
            return SessionKey(toolset.name, toolset.version, tenant, single=True)
