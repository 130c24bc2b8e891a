"""`WallWatch`: ends the streams of walls whose link was revoked, here or by another process."""

import asyncio
from collections import defaultdict
from contextlib import AbstractContextManager

from redis.asyncio import Redis
from redis.exceptions import RedisError

from offhook.operations.wall_links import FoundLink, still_there
from offhook_console.last_seen import LastSeen
from offhook_console.listeners import FeedMessage, Listener, ListenersOf

_EVERY = 1.0  # seconds between two looks
_DARK = FeedMessage("dark", "")


class WallWatch:
    """Knows the walls that listen."""

    def __init__(self, redis: Redis, seen: LastSeen) -> None:
        self._redis = redis
        self._seen = seen
        self._walls: ListenersOf[FoundLink] = ListenersOf()

    def watched(self, found: FoundLink, listener: Listener) -> AbstractContextManager[None]:
        """While in this context, watch a link. Once it is revoked, the listener's stream ends."""
        return self._walls.listening(found, listener)

    async def look(self) -> None:
        """Look which links were revoked, and note which are seen."""
        of_tenant: defaultdict[str, list[FoundLink]] = defaultdict(list)
        for found in self._walls:
            of_tenant[found.tenant].append(found)
        for tenant, links in of_tenant.items():
            there = await still_there(self._redis, tenant, [each.field for each in links])
            for found, is_there in zip(links, there, strict=True):
                if is_there:
                    self._seen.note(tenant, f"wall {found.link.id}")
                    continue
                for listener in self._walls.get(found, ()):
                    listener.end(_DARK)

    async def run(self) -> None:
        """Look every second, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self.look()
            except RedisError:
                continue  # the live feed reports it
