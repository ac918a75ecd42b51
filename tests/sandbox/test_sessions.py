"""Which server a call gets."""

from __future__ import annotations

from services.sandbox.sessions import Full, Reuse, Sessions, Start


def table(max_sessions: int = 2) -> Sessions:
    return Sessions(max_sessions=max_sessions, idle_s=10, max_age_s=100)


def start(sessions: Sessions, session_id: str, now: float = 0) -> Start:
    plan = sessions.plan("files", session_id, now)
    assert isinstance(plan, Start)
    return plan


def test_the_first_call_of_a_session_starts_a_server_and_the_next_one_reuses_it() -> None:
    sessions = table()
    first = start(sessions, "a")
    assert sessions.plan("files", "a", 1) == Reuse(first.session)


def test_sessions_and_toolsets_do_not_share() -> None:
    sessions = table()
    start(sessions, "a")
    start(sessions, "b")
    sessions = table()
    start(sessions, "a")
    assert isinstance(sessions.plan("mail", "a", 0), Start)


def test_calls_without_a_session_never_share_and_end_with_their_server() -> None:
    sessions = table()
    one, two = start(sessions, ""), start(sessions, "")
    assert one.session is not two.session
    assert sessions.release(one.session, 1)


def test_a_session_stays_after_its_call() -> None:
    sessions = table()
    assert not sessions.release(start(sessions, "a").session, 1)


def test_a_retired_server_gets_no_further_call_and_ends_with_the_last_one_in_flight() -> None:
    sessions = table()
    old = start(sessions, "a").session
    sessions.plan("files", "a", 0)
    sessions.retire(old)
    assert start(sessions, "a").session is not old
    assert not sessions.release(old, 1)
    assert sessions.release(old, 2)


def test_the_longest_unused_idle_server_makes_room() -> None:
    sessions = table()
    older, newer = start(sessions, "a").session, start(sessions, "b").session
    sessions.release(newer, 1)
    sessions.release(older, 2)
    assert start(sessions, "c", 3).evict is newer
    assert len(sessions) == 2


def test_servers_at_work_are_never_evicted() -> None:
    sessions = table()
    start(sessions, "a")
    start(sessions, "b")
    assert sessions.plan("files", "c", 50) == Full(2)


def test_idle_and_old_servers_expire_and_busy_ones_do_not() -> None:
    sessions = table(3)
    idle, busy = start(sessions, "idle").session, start(sessions, "busy").session
    sessions.release(idle, 1)
    assert sessions.expired(10.9) == []
    assert sessions.expired(11) == [idle]
    assert sessions.expired(1000) == []
    sessions.release(busy, 1000)
    assert sessions.expired(1000) == [busy]


def test_a_server_that_is_too_old_is_replaced() -> None:
    sessions = table()
    old = start(sessions, "a").session
    assert start(sessions, "a", 100).session is not old
