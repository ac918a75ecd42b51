"""Observations in Redis or Valkey: commands that both have had since Redis 7.0, and one round trip for a look back."""

from __future__ import annotations

from collections.abc import Collection

from services.callcache.keys import conversation_key, member, observation
from services.callcache.policy import Observation
from services.shared.chassis.redis import RedisServer


class RedisStore:
    """Implements the `CallStore` Protocol. Every method raises Unavailable when Redis does not answer in time."""

    def __init__(self, url: str, *, timeout_s: float, ttl_s: int) -> None:
        self._server = RedisServer(url, timeout_s=timeout_s, setting="AGENTFLUX_CALLCACHE_REDIS_URL", decode=True)
        self._ttl_s = ttl_s

    async def observe(self, conversation: str, seen: Collection[Observation]) -> set[Observation]:
        """Adds what was seen, puts off the conversation's expiry, and returns everything seen: one round trip."""
        key = conversation_key(conversation)
        async with self._server.exchange() as redis, redis.pipeline(transaction=True) as pipeline:
            pipeline.sadd(key, *map(member, seen))
            pipeline.expire(key, self._ttl_s)
            pipeline.smembers(key)
            members = (await pipeline.execute())[-1]
        return {known for text in members if (known := observation(text))}

    async def forget(self, conversation: str, seen: Collection[Observation]) -> None:
        """Drops single observations."""
        async with self._server.exchange() as redis:
            await redis.srem(conversation_key(conversation), *map(member, seen))

    async def clear(self, conversation: str) -> None:
        """Drops all observations of a conversation."""
        async with self._server.exchange() as redis:
            await redis.delete(conversation_key(conversation))

    async def ping(self) -> None:
        """Returns when Redis answers."""
        await self._server.ping()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._server.aclose()
