"""`Memory`: values that a handler keeps between events, shared by all processes."""

import asyncio
import time
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager


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
