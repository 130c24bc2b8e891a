"""`WallWatch`: ends the streams of walls whose link was revoked, here or by another process."""

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

from redis.asyncio import Redis
from redis.exceptions import RedisError

from offhook.operations.wall_links import FoundLink, still_there
from offhook.tasks import end
from offhook_console.last_seen import LastSeen

_EVERY = 1.0  # seconds between two looks
T = TypeVar("T")


class WallWatch:
    """Knows the walls that listen."""

    def __init__(self, redis: Redis, seen: LastSeen) -> None:
        self._redis = redis
        self._seen = seen
        self._walls: defaultdict[FoundLink, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def watched(self, found: FoundLink) -> Iterator[asyncio.Event]:
        """While in this context, watch a link. The event is set once it is revoked."""
        revoked = asyncio.Event()
        self._walls[found].add(revoked)
        try:
            yield revoked
        finally:
            self._walls[found].discard(revoked)
            if not self._walls[found]:
                del self._walls[found]

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
                for revoked in self._walls.get(found, ()):
                    revoked.set()

    async def run(self) -> None:
        """Look every second, until cancelled."""
        while True:
            await asyncio.sleep(_EVERY)
            try:
                await self.look()
            except RedisError:
                continue  # the live feed reports it


async def until(stop: asyncio.Event, source: AsyncIterator[T]) -> AsyncIterator[T]:
    """What a source yields, until it ends or the event is set."""
    stopping: asyncio.Task[Any] = asyncio.create_task(stop.wait())
    following: asyncio.Task[T] | None = None
    try:
        while True:
            following = asyncio.create_task(_next(source))
            await asyncio.wait([following, stopping], return_when=asyncio.FIRST_COMPLETED)
            if not following.done():
                return
            try:
                yield following.result()
            except StopAsyncIteration:
                return
    finally:
        await end(*(each for each in (stopping, following) if each is not None))
        if following is not None and not following.cancelled():
            following.exception()  # so that asyncio does not report it, too


async def _next(source: AsyncIterator[T]) -> T:
    return await anext(source)
