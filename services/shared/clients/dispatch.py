"""Which engine gets a request, and which one next when that one fails: the tries of a call, its deadline, its budget."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field

import structlog

from services.shared.clients.engine_metrics import EngineMetrics
from services.shared.clients.health import Evidence, RetryBudget, to_be_asked
from services.shared.clients.placement import Placement
from services.shared.clients.replica import Replica, evidence_of
from services.shared.contracts.errors import AdapterRefused, DeadlineExceeded, EngineUnavailable

log = structlog.get_logger()


@dataclass(eq=False)
class Call:
    """One request on its way through the tries. `deadline` is a time of the event loop; `conversation` is computed only where
    there is a choice of engines. Once the reply `has_begun` there is no other try."""

    model: str
    conversation: Callable[[], bytes]
    deadline: float
    tried: set[Replica] = field(default_factory=set)
    has_paid: bool = False
    is_moved: bool = False
    has_begun: bool = False


class Dispatch:
    """Gives calls to `replicas`.

    A try that failed is followed by one on another engine, unless something of the reply has reached the caller: after a refused
    connection or a refused adapter always, since no engine had work with it; once, and within a budget, after a lost connection,
    a 503, or an engine that fell silent.
    """

    def __init__(self, replicas: Sequence[Replica], metrics: EngineMetrics, *, timeout_s: float) -> None:
        self._replicas = {replica.url: replica for replica in replicas}
        self._metrics = metrics
        self._timeout_s = timeout_s
        self._placement = Placement(list(self._replicas))
        self._budget = RetryBudget()
        self._waiting: dict[Replica, dict[Call, asyncio.Timeout]] = {replica: {} for replica in replicas}

    def begin(self, model: str, conversation: Callable[[], bytes]) -> Call:
        """A call that has the whole time before it."""
        self._budget.deposit()
        return Call(model, conversation, deadline=asyncio.get_running_loop().time() + self._timeout_s)

    @contextmanager
    def attempt(self, call: Call) -> Iterator[Replica]:
        """One try, on an engine of its choice; ends without an error where another one is to follow."""
        replica = self._choose(call)
        call.tried.add(replica)
        replica.health.inflight += 1
        try:
            yield replica
        except TimeoutError as error:
            if not call.is_moved:
                raise DeadlineExceeded(f"engine at {replica.url} did not answer within {self._timeout_s:g} s") from error
            call.is_moved = False
        except EngineUnavailable as error:
            evidence = evidence_of(error)
            if evidence is not None:
                self.notice(replica, evidence)
            if not (call.is_moved or self._may_retry(call, evidence)):
                raise
            call.is_moved = False
        except AdapterRefused as error:
            # The release chose the adapter, not the caller, whose request is as good as it was when this engine had it.
            if not (call.is_moved or self._may_retry(call, "refused")):
                raise EngineUnavailable(f"engine at {replica.url} does not serve {call.model}: {error.message}") from error
            call.is_moved = False
        finally:
            replica.health.inflight -= 1

    @asynccontextmanager
    async def patience(self, call: Call, replica: Replica) -> AsyncIterator[None]:
        """Waits until the deadline, or until the engine is found dead and the call may move on."""
        async with asyncio.timeout_at(call.deadline) as scope:
            self._waiting[replica][call] = scope
            try:
                yield
            finally:
                del self._waiting[replica][call]

    def notice(self, replica: Replica, evidence: Evidence) -> None:
        """Takes what speaks against an engine; one that goes down loses the calls that it left waiting."""
        # Whatever answers there next may be another engine.
        replica.context_length = None
        if not replica.health.fails(evidence, time.monotonic()):
            return
        log.warning("engine went down", engine=replica.url, evidence=evidence)
        self._metrics.ejections.labels(replica.url).inc()
        # An engine that refuses is dead, and then its calls learn it by themselves; or it drains, and still answers them.
        if evidence != "refused":
            for call, scope in self._waiting[replica].items():
                if self._may_retry(call, evidence):
                    call.is_moved = True
                    scope.reschedule(0)

    def _choose(self, call: Call) -> Replica:
        if len(self._replicas) == 1:
            return next(iter(self._replicas.values()))
        untried = {url: replica.health for url, replica in self._replicas.items() if replica not in call.tried}
        loads = {url: untried[url].inflight for url in to_be_asked(untried)}
        return self._replicas[self._placement.place(loads, call.model, call.conversation())]

    def _may_retry(self, call: Call, evidence: Evidence | None) -> bool:
        others = [replica for replica in self._replicas.values() if replica not in call.tried]
        if call.has_begun or all(replica.health.state == "down" for replica in others):
            return False
        if evidence != "refused":
            # Once: the request itself may be what the engine died of.
            if call.has_paid:
                return False
            if not self._budget.withdraw():
                self._metrics.budget_exhausted.inc()
                return False
            call.has_paid = True
        self._metrics.retries.labels(evidence or "busy").inc()
        return True
