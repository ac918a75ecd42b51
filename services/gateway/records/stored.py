"""Stored responses: what is kept of one, whose it is, and the conversation that a chain of them stands for."""

from __future__ import annotations

import json
import re
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import structlog

from services.gateway.metrics import GatewayMetrics
from services.shared.contracts.errors import InvalidRequest, NotFound, Unavailable
from services.shared.contracts.tools import JsonObject, sha256_of

log = structlog.get_logger()

# Responses in one chain. One round trip reads them all, and whoever needs more is not a conversation.
MAX_CHAIN = 512

# What this process keeps at most where there is no Redis.
MEMORY_BYTES = 64 * 1024 * 1024
# What Python needs for an entry beside its value: most entries are smaller than that.
ENTRY_BYTES = 280

PREFIXES = {"message": "msg", "function_call": "fc", "function_call_output": "fco", "reasoning": "rs", "compaction": "cmp"}
OUR_RESPONSE_ID = re.compile("resp_[0-9a-f]{32}")
OUR_ITEM_ID = re.compile(r"[a-z]+_([0-9a-f]{32})[0-9a-f]{4,8}")


class PreviousResponseNotFound(NotFound):
    """`previous_response_id` names no stored response of this caller: never made, not stored, deleted, or expired."""

    code = "previous_response_not_found"


@dataclass(frozen=True)
class Record:
    """One stored response with its own input; `chain` are the ids of the responses before it, oldest first, and
    `bytes_before` what those take up together."""

    response: JsonObject
    input: list[JsonObject]
    chain: list[str]
    bytes_before: int

    @property
    def items(self) -> list[JsonObject]:
        """What was said in this turn."""
        return [*self.input, *self.response["output"]]


@dataclass(frozen=True)
class History:
    """The conversation up to a response: its items, the ids of its responses, and their size in bytes."""

    items: list[JsonObject] = field(default_factory=list)
    chain: list[str] = field(default_factory=list)
    bytes: int = 0


class Blobs(Protocol):
    """Whoever keeps values for a time. Every method raises Unavailable when it cannot, and soon."""

    async def load(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of the keys, None for those that are gone; their time starts again."""

    async def save(self, key: str, value: bytes) -> None: ...

    async def delete(self, key: str) -> bool:
        """Whether there was one."""

    async def ready(self) -> str | None:
        """None when it can keep values, else why it cannot and what that means."""

    async def aclose(self) -> None: ...


class StoredResponses:
    """Keeps responses for their callers; one caller's are not there for another."""

    def __init__(self, blobs: Blobs, metrics: GatewayMetrics, *, max_record_bytes: int, max_history_bytes: int) -> None:
        self._blobs = blobs
        self._metrics = metrics
        self._max_record_bytes = max_record_bytes
        self._max_history_bytes = max_history_bytes

    async def keep(self, caller: str, record: Record) -> bool:
        """Whether the response is stored now; the reply goes out either way."""
        value = json.dumps(vars(record), separators=(",", ":")).encode()
        outcome = "stored"
        if len(value) > self._max_record_bytes:
            outcome = "too_large"
        else:
            try:
                await self._blobs.save(_key(caller, record.response["id"]), value)
            except Unavailable as error:
                log.warning("response not stored", error=error.message)
                outcome = "unavailable"
        self._metrics.stored_responses.labels(outcome).inc()
        return outcome == "stored"

    async def get(self, caller: str, response_id: str) -> Record:
        """A stored response.

        Raises:
            NotFound: the caller has none of this id.
            Unavailable: the store cannot be asked.
        """
        [found] = await self._load(caller, [response_id])
        if found is None:
            raise NotFound(f"no response {response_id!r:.100} is stored", param="response_id")
        return _record(found)

    async def delete(self, caller: str, response_id: str) -> None:
        """Forgets a response; raises as `get` does."""
        if not (OUR_RESPONSE_ID.fullmatch(response_id) and await self._blobs.delete(_key(caller, response_id))):
            raise NotFound(f"no response {response_id!r:.100} is stored", param="response_id")

    async def history(self, caller: str, response_id: str) -> History:
        """The conversation that ends with this response.

        Raises:
            PreviousResponseNotFound: it, or one before it, is not stored (any more).
            InvalidRequest: the conversation is too long to go on by reference.
            Unavailable: the store cannot be asked.
        """
        [last] = await self._load(caller, [response_id])
        if last is None:
            raise _no_previous(response_id)
        record = _record(last)
        chain, size = [*record.chain, response_id], record.bytes_before + len(last)
        if len(chain) > MAX_CHAIN or size > self._max_history_bytes:
            raise InvalidRequest(
                f"the conversation before {response_id} has {len(chain)} responses and {size} bytes; at most {MAX_CHAIN} and "
                f"{self._max_history_bytes} (setting max_body_bytes) can be continued: start anew with a summary of it",
                param="previous_response_id",
            )
        before = await self._load(caller, record.chain) if record.chain else []
        items: list[JsonObject] = []
        for each, value in zip(record.chain, before, strict=True):
            if value is None:
                raise _no_previous(each)
            items += _record(value).items
        return History(items=[*items, *record.items], chain=chain, bytes=size)

    async def items(self, caller: str, ids: Sequence[str]) -> dict[str, JsonObject]:
        """Those of these items that stored responses of the caller hold; an item's id tells its response.

        Raises:
            InvalidRequest: they are of too many responses, or too much text; an item counts as often as it is named.
            Unavailable: the store cannot be asked.
        """
        homes = sorted({f"resp_{found[1]}" for each in ids if (found := OUR_ITEM_ID.fullmatch(each))})
        if len(homes) > MAX_CHAIN:
            raise InvalidRequest(f"input refers to items of {len(homes)} responses; at most {MAX_CHAIN}", param="input")
        uses, items, read = Counter(ids), dict[str, JsonObject](), 0
        # No piece is larger than what may be read in all.
        piece = max(1, self._max_history_bytes // self._max_record_bytes)
        for start in range(0, len(homes), piece):
            loaded = [value for value in await self._load(caller, homes[start : start + piece]) if value is not None]
            read += sum(map(len, loaded))
            self._bound_references(read)
            items |= {item["id"]: item for value in loaded for item in _record(value).items if item["id"] in uses}
        self._bound_references(sum(times * len(json.dumps(items[each])) for each, times in uses.items() if each in items))
        return items

    def _bound_references(self, size: int) -> None:
        if size > self._max_history_bytes:
            raise InvalidRequest(
                f"input refers to stored responses or items of {size} bytes; at most {self._max_history_bytes} (setting "
                "max_body_bytes) can be referred to: leave out what is not needed, and repeat no item",
                param="input",
            )

    async def _load(self, caller: str, ids: Sequence[str]) -> list[bytes | None]:
        if not all(OUR_RESPONSE_ID.fullmatch(each) for each in ids):
            return [None] * len(ids)
        return await self._blobs.load([_key(caller, each) for each in ids])


class MemoryBlobs:
    """Implements `Blobs` in this process, for deployments without Redis; the least recently used go first."""

    def __init__(self, *, ttl_s: float, max_bytes: int = MEMORY_BYTES, clock: Callable[[], float] = time.monotonic) -> None:
        self._max_bytes = max_bytes
        self._ttl_s = ttl_s
        self._clock = clock
        self._bytes = 0
        self._values: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    async def load(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of the keys, None for those that are gone; their time starts again."""
        self._expire()
        return [self._touched(key) for key in keys]

    async def save(self, key: str, value: bytes) -> None:
        """Keeps a value, and drops others where there is no room."""
        await self.delete(key)
        self._values[key] = (self._clock() + self._ttl_s, value)
        self._bytes += len(value) + ENTRY_BYTES
        self._expire()

    async def delete(self, key: str) -> bool:
        """Whether there was one."""
        self._expire()
        if key not in self._values:
            return False
        self._bytes -= len(self._values.pop(key)[1]) + ENTRY_BYTES
        return True

    async def ready(self) -> None:
        """It is there as long as the process is."""

    async def aclose(self) -> None:
        """Forgets everything."""
        self._values.clear()

    def _touched(self, key: str) -> bytes | None:
        if key not in self._values:
            return None
        self._values.move_to_end(key)
        self._values[key] = (self._clock() + self._ttl_s, self._values[key][1])
        return self._values[key][1]

    def _expire(self) -> None:
        # Least recently used is also next to expire, as every use starts the time again.
        while self._values:
            expires, value = next(iter(self._values.values()))
            if expires > self._clock() and self._bytes <= self._max_bytes:
                return
            self._values.popitem(last=False)
            self._bytes -= len(value) + ENTRY_BYTES


def item_id(response_id: str, number: int, kind: str) -> str:
    """The id of the n-th item of a response's turn, which holds the response's: so references are found without an index."""
    return f"{PREFIXES[kind]}_{response_id.removeprefix('resp_')}{number:04x}"


def _key(caller: str, response_id: str) -> str:
    """Hashed with the caller, so that nobody reaches what is not theirs, and no name stands in the store."""
    return f"agentflux:responses:v1:{sha256_of([caller, response_id])}"


def _record(value: bytes) -> Record:
    return Record(**json.loads(value))


def _no_previous(response_id: str) -> PreviousResponseNotFound:
    return PreviousResponseNotFound(
        f"no response {response_id!r:.100} is stored (it may have expired, been deleted, or been made with store: false); "
        "send the whole history as `input`",
        param="previous_response_id",
    )
