"""The settings of extensions, for their labels; read again after a change."""

import asyncio
import time
from collections import defaultdict
from collections.abc import Mapping

from redis.asyncio import Redis

from offhook.extensions import Extensions, ExtensionSettings, Name
from offhook.settings import Settings

_EVERY = 5.0  # seconds between two readings of all of them


class ExtensionLabels:
    """A copy of the settings of all extensions, one for the feeds of all tenants.

    Args:
        settings: the operator's.
    """

    def __init__(self, settings: Settings, redis: Redis) -> None:
        self._settings = settings
        self._extensions = Extensions(redis)
        self._position: bytes | None = None
        self._next = 0.0
        self._reading = asyncio.Lock()
        self._of: Mapping[str, Mapping[Name, ExtensionSettings]] = {}  # by tenant
        self.all: Mapping[Name, ExtensionSettings] = {}

    def of(self, tenant: str) -> Mapping[Name, ExtensionSettings]:
        """Those that belong to a tenant; empty: to the operator."""
        return self._of.get(tenant, {})

    async def refresh(self, *, at_once: bool = False) -> None:
        """Read them again if there was a change, every five seconds at most.

        Args:
            at_once: also sooner.
        """
        async with self._reading:
            if not at_once and time.monotonic() < self._next:
                return
            self._next = time.monotonic() + _EVERY
            position = await self._extensions.last_change()
            if position != self._position:
                every = await self._extensions.all()
                # There may be 100,000: in a thread, so that browsers need not wait for them.
                self._of = await asyncio.to_thread(self._by_tenant, every)
                self.all, self._position = every, position

    def _by_tenant(
        self, every: Mapping[Name, ExtensionSettings]
    ) -> Mapping[str, Mapping[Name, ExtensionSettings]]:
        found: defaultdict[str, dict[Name, ExtensionSettings]] = defaultdict(dict)
        for name, each in every.items():
            found[self._settings.tenant_of(*name)][name] = each
        return dict(found)
