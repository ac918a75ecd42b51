"""What the gateway keeps in Redis or Valkey: commands that both have had since 6.2, one round trip for a whole conversation."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from limits.aio.storage import RedisStorage
from limits.errors import StorageError
from redis.asyncio import Redis
from redis.exceptions import RedisError

from services.shared.chassis.redis import RedisServer, connection_pool
from services.shared.contracts.errors import Unavailable

# How long an answer about the server's clock is good for, in seconds; ours may be set anew, and another server may take over.
CLOCK_S = 60.0


class RedisBlobs:
    """Implements the `Blobs` Protocol."""

    def __init__(self, url: str, *, timeout_s: float, ttl_s: int) -> None:
        self._server = RedisServer(url, timeout_s=timeout_s, setting="AGENTFLUX_GATEWAY_REDIS_URL")
        self._ttl_s = ttl_s

    async def load(self, keys: Sequence[str]) -> list[bytes | None]:
        """The values in the order of the keys, None for those that are gone; their time starts again."""
        async with self._server.exchange() as redis, redis.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.getex(key, ex=self._ttl_s)
            return list(await pipeline.execute())

    async def save(self, key: str, value: bytes) -> None:
        """Keeps a value for `ttl_s`."""
        async with self._server.exchange() as redis:
            await redis.set(key, value, ex=self._ttl_s)

    async def delete(self, key: str) -> bool:
        """Whether there was one."""
        async with self._server.exchange() as redis:
            return bool(await redis.delete(key))

    async def ready(self) -> str | None:
        """None when Redis answers, else why it does not and what that means."""
        try:
            await self._server.ping()
        except Unavailable as error:
            return f"{error.message}; until then responses are not stored"
        return None

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._server.aclose()


class RedisCounters(RedisStorage):
    """The counters of rate limits, and the one clock of all gateways that count here; `timeout_s` is only for a connection."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._pool = connection_pool(url, timeout_s=timeout_s)
        self._clock_asked, self._clock_ahead = -CLOCK_S, 0.0
        # Options are typed as plain values, though the documentation names this one. The pool knows the address; the URL only
        # names the kind of server.
        pool: Any = self._pool
        super().__init__(
            "async+redis://",
            implementation="redispy",
            wrap_exceptions=True,
            key_prefix="agentflux:limits",
            connection_pool=pool,
        )

    async def now(self) -> float:
        """Seconds since 1970 by the server's clock: gateways whose own clocks differ count in the same windows.

        Raises:
            StorageError: the server did not answer.
        """
        if time.monotonic() - self._clock_asked >= CLOCK_S:
            try:
                seconds, microseconds = await Redis(connection_pool=self._pool).time()
            except RedisError as error:
                raise StorageError(error) from error
            self._clock_asked = time.monotonic()
            self._clock_ahead = seconds + microseconds / 1e6 - self._clock_asked
        return time.monotonic() + self._clock_ahead

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._pool.aclose()
