"""`RedisMemory`: the memory of a handler or a lookup in Redis."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from redis.asyncio import Redis
from redis.exceptions import LockError, RedisError

from offhook.errors import TemporaryError
from offhook.handler_memory import Memory
from offhook.inbox import keys


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
        key = keys.memory_lock(self._handler, name)
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
        return keys.memory(self._handler, name)


@asynccontextmanager
async def _temporary() -> AsyncIterator[None]:
    try:
        yield
    except RedisError as error:
        raise TemporaryError(f"Redis does not answer: {error}") from error
