"""Observations in Redis or Valkey: commands that both have had since Redis 7.0, and one round trip for a look back."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.callcache.keys import conversation_key, member, observation
from services.callcache.policy import Observation
from services.shared.contracts.errors import Unavailable

# Look backs that talk to Redis at the same time; the next ones wait, within the same time limit.
MAX_CONNECTIONS = 64


class RedisStore:
    """Implements the `CallStore` Protocol. Connects when first used, and again whenever a connection was lost."""

    def __init__(self, url: str, *, timeout_s: float, ttl_s: int) -> None:
        self._address = without_credentials(url)
        self._timeout_s = timeout_s
        self._ttl_s = ttl_s
        pool = BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=timeout_s,
            socket_timeout=timeout_s,
            socket_connect_timeout=timeout_s,
            # A pooled connection may be from before a restart of Redis: one more try opens a new one, at once.
            retry=Retry(NoBackoff(), 1),
            decode_responses=True,
            protocol=2,
        )
        self._redis = Redis.from_pool(pool)

    async def observe(self, conversation: str, seen: Collection[Observation]) -> set[Observation]:
        """Adds what was seen, puts off the conversation's expiry, and returns everything seen: one round trip."""
        key = conversation_key(conversation)
        async with self._within_time(), self._redis.pipeline(transaction=True) as pipeline:
            pipeline.sadd(key, *map(member, seen))
            pipeline.expire(key, self._ttl_s)
            pipeline.smembers(key)
            members = (await pipeline.execute())[-1]
        return {known for text in members if (known := observation(text))}

    async def forget(self, conversation: str, seen: Collection[Observation]) -> None:
        """Drops single observations."""
        async with self._within_time():
            await self._redis.srem(conversation_key(conversation), *map(member, seen))

    async def clear(self, conversation: str) -> None:
        """Drops all observations of a conversation."""
        async with self._within_time():
            await self._redis.delete(conversation_key(conversation))

    async def ping(self) -> None:
        """Returns when Redis answers."""
        async with self._within_time():
            await self._redis.ping()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()

    @asynccontextmanager
    async def _within_time(self) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(self._timeout_s):
                yield
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            reason = str(error) or f"no answer within {self._timeout_s:g} s"
            raise Unavailable(
                f"Redis at {self._address} cannot be used: {reason}. Start it, or set AGENTFLUX_CALLCACHE_REDIS_URL"
            ) from error


def without_credentials(url: str) -> str:
    """The URL as logs and /readyz may show it: no user, no password, and no query, which may hold both."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
