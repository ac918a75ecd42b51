"""Items as they come, and a word before each wait for the next: what asyncio's iterators do not tell."""

from __future__ import annotations

import types
from collections.abc import AsyncIterator, Awaitable, Callable, Generator
from typing import Any, Generic, TypeVar

Item = TypeVar("Item")


class BeforeWaiting(Generic[Item]):
    """The items of `source`. Where the next one has to be waited for, `pausing` is awaited first, so that who takes them knows
    when there are no more for now.

    A step of the source is driven by hand until it first yields to the event loop; from there on as `await` does it (PEP 492,
    PEP 380).
    """

    def __init__(self, source: AsyncIterator[Item], pausing: Callable[[], Awaitable[None]]) -> None:
        self._source = source
        self._pausing = pausing

    def __aiter__(self) -> BeforeWaiting[Item]:
        return self

    @types.coroutine
    def __anext__(self) -> Generator[Any, Any, Item]:
        step: Any = self._source.__anext__().__await__()
        try:
            waited_for = step.send(None)
        except StopIteration as end:
            first: Item = end.value
            return first
        failure: BaseException | None = None
        try:
            yield from self._pausing().__await__()
        except BaseException as error:
            failure = error
        while True:
            try:
                if failure is None:
                    yield waited_for
            except BaseException as error:
                failure = error
            try:
                waited_for = step.send(None) if failure is None else step.throw(failure)
            except StopIteration as end:
                item: Item = end.value
                return item
            failure = None
