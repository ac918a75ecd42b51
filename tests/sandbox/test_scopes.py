"""Whose calls may meet in one server."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.sandbox.scopes import SessionKey, session_key
from services.sandbox.toolset_file import Scope
from services.sandbox.toolsets import Toolset


def found(scope: Scope, tenant: str, session_id: str, *, version: str = "1") -> SessionKey:
    toolset = Toolset(name="files", directory=Path("/"), command=("true",), scope=scope, version=version)
    return session_key(toolset, tenant, session_id)


def shares(one: SessionKey, other: SessionKey) -> bool:
    return one == other and not one.single


@pytest.mark.parametrize(
    ("scope", "same_session", "same_tenant", "other_tenant"),
    [
        ("call", False, False, False),
        ("session", True, False, False),
        ("tenant", True, True, False),
        ("shared", True, True, True),
    ],
)
def test_a_scope_says_who_shares(scope: Scope, same_session: bool, same_tenant: bool, other_tenant: bool) -> None:
    call = found(scope, "ada", "1")
    assert shares(call, found(scope, "ada", "1")) is same_session
    assert shares(call, found(scope, "ada", "2")) is same_tenant
    assert shares(call, found(scope, "bob", "1")) is other_tenant
    assert shares(call, found(scope, "bob", "2")) is other_tenant


def test_a_call_without_a_session_shares_with_nobody() -> None:
    assert not shares(found("session", "ada", ""), found("session", "ada", ""))


def test_a_changed_toolset_is_another_one() -> None:
    assert not shares(found("shared", "ada", ""), found("shared", "ada", "", version="2"))
