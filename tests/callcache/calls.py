"""Calls as tests write them, and a store in a dictionary."""

from __future__ import annotations

from collections.abc import Collection

from services.callcache.policy import Observation
from services.shared.contracts.calls import LookBack, MadeCall
from services.shared.contracts.errors import Unavailable


def made(call_id: str, *, tool: str = "read_file", arguments: str = '{"path":"a.txt"}', result: str = "no such file") -> MadeCall:
    return MadeCall(call_id=call_id, tool=tool, arguments=arguments, result=result)


def repeated(times: int, **shape: str) -> list[MadeCall]:
    """The same call `times` times, each with an id of its own."""
    return [made(f"call_{number}", **shape) for number in range(times)]


def look_back(calls: list[MadeCall], conversation: str = "conversation") -> LookBack:
    return LookBack(conversation=conversation, calls=calls)


class DictStore:
    """Implements the `CallStore` Protocol; `down` makes it fail as Redis does."""

    def __init__(self) -> None:
        self.seen: dict[str, set[Observation]] = {}
        self.down = False
        self.closed = False

    async def observe(self, conversation: str, seen: Collection[Observation]) -> set[Observation]:
        self._fail_if_down()
        self.seen.setdefault(conversation, set()).update(seen)
        return set(self.seen[conversation])

    async def forget(self, conversation: str, seen: Collection[Observation]) -> None:
        self._fail_if_down()
        self.seen[conversation].difference_update(seen)

    async def clear(self, conversation: str) -> None:
        self._fail_if_down()
        self.seen.pop(conversation, None)

    async def ping(self) -> None:
        self._fail_if_down()

    async def aclose(self) -> None:
        self.closed = True

    def _fail_if_down(self) -> None:
        if self.down:
            raise Unavailable("the store is down")
