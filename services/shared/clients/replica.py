"""One engine among several: its clients, what is known of it, and the look that is had at it all the time."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping

import httpx
import opentelemetry.context
import structlog

from services.shared.clients.engine import EngineClient
from services.shared.clients.health import INTERVAL_S, LOOK_TIMEOUT_S, Evidence, Health
from services.shared.clients.http import HttpClient
from services.shared.contracts.errors import (
    AgentFluxError,
    DeadlineExceeded,
    EngineUnavailable,
    InvalidRequest,
    NotFound,
    UpstreamError,
)

log = structlog.get_logger()

Adapters = Callable[[], Mapping[str, list[int]]]
"""The models that serve now, with a prompt (token ids) for each."""


class Replica:
    """An engine at `url`. `context_length` is None until it has said it, and again after it went down."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self.url = url
        self.health = Health()
        self.context_length: int | None = None
        self._http = HttpClient(url, service="engine", timeout_s=timeout_s, unavailable=EngineUnavailable)
        self.engine = EngineClient(self._http)

    async def aclose(self) -> None:
        """Closes the connection pool."""
        await self._http.aclose()

    async def obstacle(self) -> str | None:
        """None when the engine answers, else why not."""
        try:
            await self._look()
        except AgentFluxError as error:
            return error.message
        return None

    async def refusal(self, model: str, prompt: list[int]) -> AgentFluxError | None:
        """None when the engine has loaded `model` and read `prompt`, else the error in which that ended."""
        try:
            await self.engine.warm(model, prompt)
        except AgentFluxError as error:
            return error
        return None

    async def watch(self, adapters: Adapters, notice: Callable[[Replica, Evidence], None]) -> None:
        """Looks at the engine for ever: gives `notice` of what speaks against it, and lets it back when it is well, and
        warm with `adapters`."""
        # A task inherits what belongs to the request that happened to come first.
        structlog.contextvars.unbind_contextvars("request_id")
        opentelemetry.context.attach(opentelemetry.context.Context())
        while True:
            started = time.monotonic()
            try:
                await self._look()
                self.health.answers()
                if self.health.is_rested(time.monotonic()):
                    await self._let_back(adapters())
            except AgentFluxError as error:
                notice(self, "refused" if evidence_of(error) == "refused" else "silent")
            except Exception:
                log.exception("an engine cannot be watched", engine=self.url)
            await asyncio.sleep(started + INTERVAL_S - time.monotonic())

    async def _look(self) -> None:
        try:
            async with asyncio.timeout(LOOK_TIMEOUT_S):
                models = await self._http.get("/v1/models")
            self.context_length = int(models["data"][0]["max_model_len"])
        except TimeoutError as error:
            raise DeadlineExceeded(f"engine at {self.url} did not answer within {LOOK_TIMEOUT_S:g} s") from error
        except (LookupError, TypeError, ValueError) as error:
            raise UpstreamError(f"engine at {self.url} does not list its models as vLLM does: {models!r:.300}") from error

    async def _let_back(self, adapters: Mapping[str, list[int]]) -> None:
        for model, prompt in adapters.items():
            error = await self.refusal(model, prompt)
            if isinstance(error, InvalidRequest | NotFound):
                # Deleted or damaged meanwhile: no rest will mend that, and all the others can be served.
                log.error("engine returns without an adapter", engine=self.url, model=model, reason=error.message)
            elif error is not None:
                log.warning("engine stays out", engine=self.url, model=model, reason=error.message)
                self.health.stays_out(time.monotonic())
                return
        self.health.goes_on_trial()
        log.info("engine is back", engine=self.url)


def evidence_of(error: AgentFluxError) -> Evidence | None:
    """What an error says against its engine: nothing where the engine itself said that it cannot serve now."""
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, httpx.TransportError):
        cause = cause.__context__
    if cause is None:
        return None
    return "refused" if isinstance(cause, httpx.ConnectError) else "lost"
