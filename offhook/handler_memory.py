"""`Memory`: what a handler remembers from one event to another, whichever process delivers them.

offhook:memory:HANDLER:NAME        what it remembers; expires
offhook:memory:HANDLER:NAME:lock   set while one delivery holds the lock
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

_HELD = 60.0  # seconds after which a lock is free, whatever has become of who held it
_WAIT = 20.0  # seconds for a lock


class Memory(ABC):
    """A few values of one handler, by name. For notes, not for data: all of them expire.

    Every method raises `TemporaryError` when Redis does not answer.
    """

    @abstractmethod
    async def get(self, name: str) -> str | None:
        """What was remembered under this name; None when nothing was, or it has expired."""

    @abstractmethod
    async def set(self, name: str, value: str, seconds: float) -> None:
        """Remember it for so many seconds, in the place of what was there."""

    @abstractmethod
    async def delete(self, name: str) -> None:
        """Forget it."""

    @abstractmethod
    def lock(self, name: str) -> AbstractAsyncContextManager[None]:
        """Hold a lock: of all deliveries to this handler, in whatever process, one has it at once.

        It is free again after a minute, should its holder have been killed. A delivery that waits
        for it for 20 seconds raises `TemporaryError`.
        """


class RedisMemory(Memory):
    """The memory of a handler, in Redis."""

    def __init__(self, redis: Redis, handler: str) -> None:
        self._redis = redis
        self._handler = handler

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
        lock = self._redis.lock(f"{self._key(name)}:lock", _HELD, blocking_timeout=_WAIT)
        async with _temporary():
            held = await lock.acquire()
        if not held:
            raise TemporaryError(f"another delivery holds {name!r} for too long")
        try:
            yield
        finally:
            try:
                await lock.release()
            except LockError as error:
                raise TemporaryError(f"took so long that it lost {name!r}") from error
            except RedisError as error:
                raise TemporaryError(f"Redis does not answer: {error}") from error

    def _key(self, name: str) -> str:
        return f"offhook:memory:{self._handler}:{name}"


class LocalMemory(Memory):
    """The memory of a handler, in this process, for as long as the object lives."""

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
