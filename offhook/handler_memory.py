"""`Memory`: values that a handler keeps between events, shared by all processes.

offhook:memory:HANDLER:NAME        a value; expires
offhook:memory:HANDLER:NAME:lock   set while a delivery holds the lock
"""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import LockError, RedisError

from offhook.errors import TemporaryError


class Memory(ABC):
    """A few values of one handler, by name. They all expire.

    Every method raises `TemporaryError` if Redis does not respond.
    """

    @abstractmethod
    async def get(self, name: str) -> str | None:
        """The value; None if there is none, or it has expired."""

    @abstractmethod
    async def set(self, name: str, value: str, seconds: float) -> None:
        """Store a value for this time, in place of any other."""

    @abstractmethod
    async def delete(self, name: str) -> None:
        """Delete a value, if it is there."""

    @abstractmethod
    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        """Hold a lock that excludes all other deliveries to this handler, in any process.

        It expires after a minute, in case its holder was killed.

        Raises:
            TemporaryError: it was not free within 20 seconds, or expired.
        """


class RedisMemory(Memory):
    """A handler's memory in Redis.

    Args:
        held: seconds until a lock expires.
        wait: seconds to wait for a lock.
    """

    def __init__(
        self, redis: Redis, handler: str, *, held: float = 60.0, wait: float = 20.0
    ) -> None:
        self._redis = redis
        self._handler = handler
        self._held = held
        self._wait = wait

    async def get(self, name: str) -> str | None:
        async with _temporary():
            value: Any = await self._redis.get(self._key(name))
        return None if value is None else str(value, "utf-8")

    async def set(self, name: str, value: str, seconds: float) -> None:
        async with _temporary():
            await self._redis.set(self._key(name), value, px=max(1, int(seconds * 1000)))

    async def delete(self, name: str) -> None:
        async with _temporary():
            await self._redis.delete(self._key(name))

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[None]:
        key = f"{self._key(name)}:lock"
        lock = self._redis.lock(key, self._held, blocking_timeout=self._wait)
        async with _temporary():
            held = await lock.acquire()
        if not held:
            raise TemporaryError(f"another delivery has held the lock {name!r} too long")
        try:
            yield
        finally:
            async with _temporary():
                try:
                    await lock.release()
                except LockError as error:
                    raise TemporaryError(f"held the lock {name!r} until it expired") from error

    def _key(self, name: str) -> str:
        return f"offhook:memory:{self._handler}:{name}"


class LocalMemory(Memory):
    """A handler's memory in this object."""

    def __init__(self) -> None:
        self._values: dict[str, tuple[str, float]] = {}
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)

    async def get(self, name: str) -> str | None:
        value, until = self._values.get(name, ("", 0.0))
        return value if until > time.monotonic() else None

    async def set(self, name: str, value: str, seconds: float) -> None:
        self._values[name] = (value, time.monotonic() + seconds)

    async def delete(self, name: str) -> None:
        self._values.pop(name, None)

    @asynccontextmanager
    async def lock(self, name: str) -> AsyncIterator[None]:
        async with self._locks[name]:
            yield


@asynccontextmanager
async def _temporary() -> AsyncIterator[None]:
    try:
        yield
    except RedisError as error:
        raise TemporaryError(f"Redis does not answer: {error}") from error
