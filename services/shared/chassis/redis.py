"""Redis or Valkey as every service talks to it: a bounded pool, a deadline on each exchange, errors of ours."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit

from redis.asyncio import BlockingConnectionPool, Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from services.shared.contracts.errors import Unavailable

# Requests that talk to Redis at the same time; the next ones wait, within the same time limit.
MAX_CONNECTIONS = 64


def connection_pool(url: str, *, timeout_s: float, decode: bool = False) -> BlockingConnectionPool:
    """Connects when first used, and again whenever a connection was lost; `decode` gives text instead of bytes."""
    return BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=timeout_s,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        # A pooled connection may be from before a restart of Redis: one more try opens a new one, at once.
        retry=Retry(NoBackoff(), 1),
        decode_responses=decode,
        protocol=2,
    )


class RedisServer:
    """A Redis with a deadline: every exchange is made inside `exchange()`. `setting` names where its URL comes from."""

    def __init__(self, url: str, *, timeout_s: float, setting: str, decode: bool = False) -> None:
        self._address = without_credentials(url)
        self._timeout_s = timeout_s
        self._setting = setting
        self._redis = Redis.from_pool(connection_pool(url, timeout_s=timeout_s, decode=decode))

    @asynccontextmanager
    async def exchange(self) -> AsyncIterator[Redis]:
        """The connection's commands, all together within the time limit.

        Raises:
            Unavailable: Redis did not answer, or not in time.
        """
        try:
            async with asyncio.timeout(self._timeout_s):
                yield self._redis
        except (RedisError, OSError) as error:  # TimeoutError is an OSError
            reason = str(error) or f"no answer within {self._timeout_s:g} s"
            raise Unavailable(f"Redis at {self._address} cannot be used: {reason}. Start it, or set {self._setting}") from error

    async def ping(self) -> None:
        """Returns when Redis answers."""
        async with self.exchange() as redis:
            await redis.ping()

    async def aclose(self) -> None:
        """Closes the connections."""
        await self._redis.aclose()


def without_credentials(url: str) -> str:
    """The URL as logs and /readyz may show it: no user, no password, and no query, which may hold both."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}"
