"""What the gateway keeps in Redis or Valkey: commands that both have had since 6.2, one round trip for a whole conversation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from limits.aio.storage import RedisStorage

from services.shared.chassis.redis import RedisServer, connection_pool
from services.shared.contracts.errors import Unavailable


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
    """The counters of rate limits. Whoever counts gives it the time; here it is only for a connection."""

    def __init__(self, url: str, *, timeout_s: float) -> None:
        self._pool = connection_pool(url, timeout_s=timeout_s)
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

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._pool.aclose()
