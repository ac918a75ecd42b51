"""How a service leaves: it says so, refuses what is new, lets what runs finish, and ends with exit code 0."""

from __future__ import annotations

import math
import time
from types import FrameType

import structlog
import uvicorn

log = structlog.get_logger()


class Drain:
    """Whether the service is leaving. The edge asks it, the server starts it."""

    def __init__(self) -> None:
        self.has_begun = False


class DrainingServer(uvicorn.Server):
    """At SIGTERM or SIGINT uvicorn closes its sockets at once, so that clients whose balancer does not know it yet are refused a
    connection. This one keeps listening, for answers of 503, until its requests are done or `drain_timeout_s` have passed. A
    second signal ends it at once.
    """

    def __init__(self, config: uvicorn.Config, drain: Drain, *, drain_timeout_s: float) -> None:
        super().__init__(config)
        self._drain = drain
        self._timeout_s = drain_timeout_s
        self._began = 0.0

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """The signal handler. The signal is not raised again at the end, as uvicorn would: to leave when asked is a success."""
        if self._drain.has_begun:
            self.should_exit = self.force_exit = True
            return
        self._drain.has_begun = True
        self._began = time.monotonic()

    async def on_tick(self, counter: int) -> bool:
        """Called ten times a second; true when it is time to close everything."""
        left_s = self._timeout_s - (time.monotonic() - self._began)
        if self._drain.has_begun and not self.should_exit and (left_s <= 0 or not self.server_state.tasks):
            log.info("leaving", unfinished=len(self.server_state.tasks))
            # What is left of the time is for replies that are complete but not yet read.
            self.config.timeout_graceful_shutdown = max(1, math.ceil(left_s))
            self.should_exit = True
        return await super().on_tick(counter)
