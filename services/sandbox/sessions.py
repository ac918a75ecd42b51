"""Which server a call gets: one of its session, a spare one, a new one, or none now. A clock comes in, a plan goes out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from services.sandbox.scopes import SessionKey


@dataclass(eq=False)
class Session:
    """One server's place in the table, compared by identity. Times are seconds of a monotonic clock.

    Without a `key` it is a spare: started, and nobody's yet.
    """

    toolset: str
    version: str
    key: SessionKey | None
    started: float
    last_used: float
    calls: int = 0
    in_flight: int = 0
    retired: bool = False


@dataclass(frozen=True)
class Reuse:
    """The session has a server that may be used again."""

    session: Session


@dataclass(frozen=True)
class Adopt:
    """A spare server becomes the session's."""

    session: Session


@dataclass(frozen=True)
class Start:
    """A new server is due; `evict` has to go first to make room."""

    session: Session
    evict: Session | None = None


@dataclass(frozen=True)
class Full:
    """Every place is taken by a server at work."""

    running: int


@dataclass(frozen=True)
class Occupied:
    """The session has a server, which has as many calls in flight as it may."""

    calls: int


Plan = Reuse | Adopt | Start | Full | Occupied


@dataclass
class Sessions:
    """The table of servers: at most `max_sessions`, each with at most `calls_at_once` in flight, and for at most `max_calls`
    calls, `max_age_s` of life and `idle_s` without a call."""

    max_sessions: int
    idle_s: float
    max_age_s: float
    calls_at_once: int
    max_calls: int
    _live: list[Session] = field(default_factory=list)
    _home: dict[SessionKey, Session] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self._live)

    def plan(self, key: SessionKey, now: float) -> Plan:
        """What to do for a call, which counts as in flight from here until `release`, unless it gets no server."""
        if (own := self._own(key, now)) is not None:
            if own.in_flight >= self.calls_at_once:
                return Occupied(own.in_flight)
            return Reuse(self._take(own, key, now))
        if spares := self._spares(key.version, now):
            # The oldest is the one that is most likely ready.
            return Adopt(self._take(spares[0], key, now))
        evict = None
        if len(self._live) >= self.max_sessions:
            idle = [session for session in self._live if not session.in_flight]
            if not idle:
                return Full(len(self._live))
            # A spare holds nothing that anybody would miss.
            evict = min(idle, key=lambda session: (session.key is not None, session.last_used))
            self.remove(evict)
        session = Session(key.toolset, key.version, key, started=now, last_used=now)
        self._live.append(session)
        return Start(self._take(session, key, now), evict)

    def has_server(self, key: SessionKey, now: float) -> bool:
        """Whether a call would get a server that has been started already."""
        return self._own(key, now) is not None or bool(self._spares(key.version, now))

    def spare(self, toolset: str, version: str, wanted: int, now: float) -> Session | None:
        """The place of one more spare server, if fewer than `wanted` are there and there is room without evicting anybody."""
        if len(self._live) >= self.max_sessions or len(self._spares(version, now)) >= wanted:
            return None
        session = Session(toolset, version, None, started=now, last_used=now)
        self._live.append(session)
        return session

    def release(self, session: Session, now: float) -> bool:
        """Ends one call; True when the session's server has to go now."""
        session.in_flight -= 1
        session.last_used = now
        return session.in_flight == 0 and (session.retired or session.key is None or session.key.single)

    def retire(self, session: Session) -> None:
        """No further call gets this server: it broke a rule, its tool hangs, or its time is over. Its last call ends it."""
        session.retired = True
        if session.key is not None and self._home.get(session.key) is session:
            del self._home[session.key]

    def remove(self, session: Session) -> None:
        """Forgets a server that is gone."""
        self.retire(session)
        if session in self._live:
            self._live.remove(session)

    def expired(self, now: float) -> list[Session]:
        """Idle servers whose time is over; they are out of the table when this returns."""
        over = [session for session in self._live if not session.in_flight and (session.retired or self._is_over(session, now))]
        for session in over:
            self.remove(session)
        return over

    def outdate(self, versions: Mapping[str, str]) -> None:
        """Retires the servers of toolsets that have another version now. What is not among `versions` stays as it is."""
        for session in self._live:
            if versions.get(session.toolset, session.version) != session.version:
                self.retire(session)

    def _own(self, key: SessionKey, now: float) -> Session | None:
        own = None if key.single else self._home.get(key)
        if own is not None and (own.calls >= self.max_calls or now - own.started >= self.max_age_s):
            self.retire(own)
            return None
        return own

    def _spares(self, version: str, now: float) -> list[Session]:
        return [
            session
            for session in self._live
            if session.key is None
            and session.version == version
            and not session.retired
            and now - session.started < self.max_age_s
        ]

    def _take(self, session: Session, key: SessionKey, now: float) -> Session:
        session.key = key
        session.calls += 1
        session.in_flight += 1
        session.last_used = now
        if not key.single:
            self._home[key] = session
        return session

    def _is_over(self, session: Session, now: float) -> bool:
        # Waiting for somebody is what a spare is for.
        unused = session.key is not None and now - session.last_used >= self.idle_s
        return unused or now - session.started >= self.max_age_s
