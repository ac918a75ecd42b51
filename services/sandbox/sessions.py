"""Which server a call gets: one that its session already has, a new one, or none now. A clock comes in, a plan goes out."""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(frozen=True)
class SessionKey:
    """What a server belongs to. `once` is 0 for a session, else the number of the single call that the server is for."""

    toolset: str
    session_id: str
    once: int = 0


@dataclass(eq=False)
class Session:
    """One server's place in the table, compared by identity. Times are seconds of a monotonic clock."""

    key: SessionKey
    started: float
    last_used: float
    in_flight: int = 0
    retired: bool = False


@dataclass(frozen=True)
class Reuse:
    """The session has a server that may be used again."""

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


Plan = Reuse | Start | Full


@dataclass
class Sessions:
    """The table of servers: at most `max_sessions`, each at most `max_age_s` old and `idle_s` idle."""

    max_sessions: int
    idle_s: float
    max_age_s: float
    _live: list[Session] = field(default_factory=list)
    _once: int = 0

    def __len__(self) -> int:
        return len(self._live)

    def plan(self, toolset: str, session_id: str, now: float) -> Plan:
        """What to do for a call, which counts as in flight from here until `release`.

        A call without a session id gets a server of its own: two callers that name no session share nothing.
        """
        key = SessionKey(toolset, session_id) if session_id else self._single(toolset)
        for session in self._live:
            if session.key == key and not session.retired and now - session.started < self.max_age_s:
                session.in_flight += 1
                session.last_used = now
                return Reuse(session)
        evict = None
        if len(self._live) >= self.max_sessions:
            idle = [session for session in self._live if not session.in_flight]
            if not idle:
                return Full(len(self._live))
            evict = min(idle, key=lambda session: session.last_used)
            self._live.remove(evict)
        session = Session(key, started=now, last_used=now, in_flight=1)
        self._live.append(session)
        return Start(session, evict)

    def release(self, session: Session, now: float) -> bool:
        """Ends one call; True when the session's server has to go now."""
        session.in_flight -= 1
        session.last_used = now
        return session.in_flight == 0 and (session.retired or bool(session.key.once))

    def retire(self, session: Session) -> None:
        """No further call gets this server: it broke a rule, or its tool hangs. The last call in flight ends it."""
        session.retired = True

    def remove(self, session: Session) -> None:
        """Forgets a server that is gone."""
        if session in self._live:
            self._live.remove(session)

    def expired(self, now: float) -> list[Session]:
        """Idle servers whose time is over; they are out of the table when this returns."""
        over = [
            session
            for session in self._live
            if not session.in_flight and (now - session.last_used >= self.idle_s or now - session.started >= self.max_age_s)
        ]
        for session in over:
            self._live.remove(session)
        return over

    def _single(self, toolset: str) -> SessionKey:
        self._once += 1
        return SessionKey(toolset, "", self._once)
