"""The settings of all extensions, for their labels; read again after a change."""

import time
from collections.abc import Mapping

from redis.asyncio import Redis

from offhook.extensions import Extensions, ExtensionSettings, Name

_EVERY = 5.0  # seconds between two readings of all of them


class ExtensionLabels:
    """A copy of the settings of all extensions."""

    def __init__(self, redis: Redis) -> None:
        self._extensions = Extensions(redis)
        self._position: bytes | None = None
        self._next = 0.0
        self.all: Mapping[Name, ExtensionSettings] = {}

    async def refresh(self, *, at_once: bool = False) -> None:
        """Read them again if there was a change, every five seconds at most.

        Args:
            at_once: also sooner.
        """
        if not at_once and time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _EVERY
        position = await self._extensions.last_change()
        if position != self._position:
            self.all = await self._extensions.all()
            self._position = position
