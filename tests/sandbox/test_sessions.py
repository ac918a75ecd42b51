"""Which server a call gets."""

from __future__ import annotations

from services.sandbox.scopes import SessionKey
from services.sandbox.sessions import Adopt, Full, Occupied, Reuse, Session, Sessions, Start


def table(max_sessions: int = 2, *, calls_at_once: int = 8, max_calls: int = 100) -> Sessions:
    return Sessions(max_sessions=max_sessions, idle_s=10, max_age_s=100, calls_at_once=calls_at_once, max_calls=max_calls)


def key(session_id: str, toolset: str = "files", *, version: str = "1") -> SessionKey:
    return SessionKey(toolset, version, "tenant", session_id, single=not session_id)


def start(sessions: Sessions, session_id: str, now: float = 0) -> Start:
    plan = sessions.plan(key(session_id), now)
    assert isinstance(plan, Start)
    return plan


def spare(sessions: Sessions, now: float = 0, *, version: str = "1") -> Session:
    session = sessions.spare("files", version, 1, now)
    assert session is not None
    return session


def test_the_first_call_of_a_session_starts_a_server_and_the_next_one_reuses_it() -> None:
    sessions = table()
    first = start(sessions, "a")
    assert sessions.plan(key("a"), 1) == Reuse(first.session)


def test_sessions_and_toolsets_do_not_share() -> None:
    sessions = table(3)
    start(sessions, "a")
    start(sessions, "b")
    assert isinstance(sessions.plan(key("a", "mail"), 0), Start)


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
    sessions.plan(key("a"), 0)
    sessions.retire(old)
    assert start(sessions, "a").session is not old
    assert not sessions.release(old, 1)
    assert sessions.release(old, 2)


def test_the_successor_of_a_retired_server_stays_when_that_one_is_gone() -> None:
    sessions = table()
    old = start(sessions, "a").session
    sessions.retire(old)
    new = start(sessions, "a").session
    sessions.remove(old)
    assert sessions.plan(key("a"), 1) == Reuse(new)


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
    assert sessions.plan(key("c"), 50) == Full(2)


def test_a_server_takes_only_so_many_calls_at_once() -> None:
    sessions = table(calls_at_once=2)
    session = start(sessions, "a").session
    sessions.plan(key("a"), 0)
    assert sessions.plan(key("a"), 0) == Occupied(2)
    sessions.release(session, 1)
    assert sessions.plan(key("a"), 1) == Reuse(session)


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


def test_a_server_that_had_all_its_calls_is_replaced_and_swept() -> None:
    sessions = table(max_calls=2)
    old = start(sessions, "a").session
    sessions.plan(key("a"), 0)
    for _ in range(2):
        sessions.release(old, 1)
    assert start(sessions, "a", 2).session is not old
    assert sessions.expired(2) == [old]


def test_a_spare_server_becomes_the_next_sessions_and_is_nobody_elses() -> None:
    sessions = table(3)
    waiting = spare(sessions)
    assert sessions.has_server(key("a"), 1)
    assert sessions.plan(key("a"), 1) == Adopt(waiting)
    assert isinstance(sessions.plan(key("b"), 1), Start)
    assert sessions.plan(key("a"), 1) == Reuse(waiting)


def test_a_spare_server_of_another_version_or_age_is_not_given_away() -> None:
    sessions = table(4)
    spare(sessions, version="2")
    spare(sessions, now=0)
    assert isinstance(sessions.plan(key("a"), 100), Start)


def test_a_spare_server_taken_for_a_single_call_ends_with_it() -> None:
    sessions = table()
    session = spare(sessions)
    assert sessions.plan(key(""), 1) == Adopt(session)
    assert sessions.release(session, 2)


def test_there_are_no_more_spare_servers_than_wanted_and_none_takes_a_place_from_a_session() -> None:
    sessions = table(2)
    spare(sessions)
    assert sessions.spare("files", "1", 1, 0) is None
    sessions.plan(key("a"), 0)
    start(sessions, "b")
    assert sessions.spare("files", "1", 2, 0) is None


def test_a_spare_server_does_not_idle_out_but_grows_old_and_makes_room_first() -> None:
    sessions = table(2)
    session = start(sessions, "a").session
    sessions.release(session, 0)
    waiting = spare(sessions, now=0, version="2")
    assert sessions.expired(9) == []
    assert start(sessions, "b", 9).evict is waiting
    other = table()
    old = spare(other)
    assert other.expired(99) == []
    assert other.expired(100) == [old]


def test_servers_of_a_toolset_that_changed_finish_their_calls_and_go() -> None:
    sessions = table(4)
    busy, idle = start(sessions, "busy").session, start(sessions, "idle").session
    sessions.release(idle, 1)
    sessions.outdate({"files": "1"})
    assert sessions.expired(1) == []
    sessions.outdate({"mail": "2"})
    assert sessions.expired(1) == []
    sessions.outdate({"files": "2"})
    assert sessions.expired(1) == [idle]
    assert sessions.release(busy, 2)
