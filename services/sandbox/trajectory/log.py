"""The trajectory log: a `start` record before a call runs, and exactly one `end` record however it ends."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Protocol, Self

import structlog

from services.sandbox.drivers.driver import Capabilities
from services.sandbox.errors import LogUnavailable
from services.sandbox.metrics import reason_of
from services.sandbox.toolsets import Toolset
from services.sandbox.trajectory.asking import Asking, CallLike
from services.sandbox.trajectory.records import Asked, Failed, Finished, end_row, start_row
from services.sandbox.trajectory.store import TrajectoryFiles, sync
from services.shared.contracts.errors import AgentFluxError, Unavailable
from services.shared.contracts.tools import JsonObject

log = structlog.get_logger()

_COMPLAIN_EVERY_S = 60.0
# A log that could not be opened is tried again after this long: its last file has to be read for that.
RETRY_S = 60.0


class Recorder(Protocol):
    """One call's place in the log: entered before the call runs, left when it ended."""

    def finished(self, result: Finished) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None: ...


class Unrecorded:
    """Of a sandbox that keeps no log."""

    def finished(self, result: Finished) -> None:
        """Nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass


class TrajectoryLog:
    """Writes to `files`, or nowhere without them.

    With `required`, a call that cannot be logged is not run; else it is run and counted. `with_text` keeps arguments and
    results. `code_of` gives the gRPC code of an error; `count` is called with what became of a record: `written` or `lost`.
    """

    def __init__(
        self,
        files: TrajectoryFiles | None,
        *,
        asking: Asking,
        required: bool = True,
        with_text: bool = False,
        code_of: Callable[[AgentFluxError], str] = lambda error: "UNKNOWN",
        count: Callable[[str], None] = lambda outcome: None,
    ) -> None:
        self._files = files
        self._asking = asking
        self._required = required
        self._with_text = with_text
        self._code_of = code_of
        self._count = count
        self._is_open = False
        # Ends that the disk would not take; their calls are over, so they can only wait.
        self._owed: list[JsonObject] = []
        self._complained = -_COMPLAIN_EVERY_S
        self._tried = 0.0

    def open(self) -> None:
        """Begins to write, after the calls that a dead runner left were ended.

        Raises:
            Unavailable: the log is required and cannot be kept.
        """
        if self._files is None:
            return
        self._tried = time.monotonic()
        try:
            left = self._files.open()
        except (OSError, Unavailable) as error:
            message = error.message if isinstance(error, Unavailable) else (
                f"the trajectory log cannot be kept in {self._files.directory}: {error.strerror}; set "
                "AGENTFLUX_SANDBOX_TRAJECTORY_DIR, or AGENTFLUX_SANDBOX_TRAJECTORY=off to do without"
            )  # fmt: skip
            if self._required:
                raise Unavailable(message) from None
            log.error("no trajectory log", problem=message)
            return
        self._is_open = True
        if left:
            log.warning("calls were in flight when the sandbox died", aborted=left)

    def recorded(self, call: CallLike, toolset: Toolset | None, capabilities: Capabilities) -> Recorder:
        """The place of a call. Entering it raises LogUnavailable where the log is required and cannot be written."""
        return Unrecorded() if self._files is None else _Recorded(self, self._asking.asked(call, toolset, capabilities))

    async def keep(self, interval_s: float) -> None:
        """Brings what was written to the disk, every `interval_s` seconds, for as long as the service runs.

        A log that is not required and could not be opened is opened once it can be.
        """
        while True:
            await asyncio.sleep(interval_s)
            if self._files is None:
                continue
            if not self._is_open:
                if time.monotonic() - self._tried >= RETRY_S:
                    await asyncio.to_thread(self.open)
                continue
            try:
                self._pay()
                await asyncio.to_thread(sync, self._files.tick())
            except OSError as error:
                self._complain(error)

    def close(self) -> None:
        """Writes what is owed and lets go of the files."""
        if self._files is not None and self._is_open:
            with suppress(OSError):
                self._pay()
            self._files.close()
            self._is_open = False

    def begin(self, asked: Asked) -> int | None:
        """The number of the call's start record; None when the call runs without one."""
        assert self._files is not None
        try:
            if not self._is_open:
                raise OSError("it is not open")
            self._pay()
            number = self._files.append(start_row(asked, with_text=self._with_text))
        except OSError as error:
            self._complain(error)
            if self._required:
                raise LogUnavailable(
                    f"the call was not run, because the trajectory log in {self._files.directory} cannot be written: "
                    f"{error.strerror or error}; make room there, or set AGENTFLUX_SANDBOX_TRAJECTORY=best-effort"
                ) from None
            self._count("lost")
            return None
        self._count("written")
        return number

    def end(self, asked: Asked, started: int, total_s: float, said: Finished | BaseException) -> None:
        """The end of the call that began as record `started`."""
        ended = self._failed(said) if isinstance(said, BaseException) else said
        self._owed.append(end_row(asked, started, ended, total_s=total_s, with_text=self._with_text))
        try:
            self._pay()
        except OSError as error:
            self._complain(error)

    def _pay(self) -> None:
        assert self._files is not None
        while self._owed:
            self._files.append(self._owed[0])
            del self._owed[0]
            self._count("written")

    def _failed(self, error: BaseException) -> Failed:
        if isinstance(error, AgentFluxError):
            return Failed(self._code_of(error), reason_of(error), error.message)
        reason = reason_of(error)
        return Failed(reason if reason == "CANCELLED" else "INTERNAL", reason, type(error).__name__)

    def _complain(self, error: OSError) -> None:
        if time.monotonic() - self._complained >= _COMPLAIN_EVERY_S:
            self._complained = time.monotonic()
            log.error("the trajectory log cannot be written", problem=error.strerror or str(error), owed=len(self._owed))


class _Recorded:
    def __init__(self, trajectories: TrajectoryLog, asked: Asked) -> None:
        self._log = trajectories
        self._asked = asked
        self._began = time.perf_counter()
        self._number: int | None = None
        self._result: Finished | None = None

    def finished(self, result: Finished) -> None:
        """The call has this result."""
        self._result = result

    def __enter__(self) -> Self:
        self._number = self._log.begin(self._asked)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._number is None:
            return
        said = error or self._result
        assert said is not None, "a call ended with neither a result nor an error"
        self._log.end(self._asked, self._number, time.perf_counter() - self._began, said)
