"""`Trimming`: forgets events of the inbox that are old, or too many."""

from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

from offhook.inbox import keys
from offhook.inbox.positions import START, order_of
from offhook.inbox.stream import Inbox
from offhook.inbox.stream_state import place, place_of

_PAGE = 1000


class Trimming:
    """Forgets events, except those that must still be delivered or folded."""

    def __init__(self, inbox: Inbox) -> None:
        self._redis = inbox.redis

    async def trim(
        self, partition: int, before: datetime | None, handlers: Iterable[str], tenant: str = ""
    ) -> int:
        """Forget a tenant's events accepted before a moment, except those not finished.

        Args:
            before: by the server's clock; None for all finished events.
            handlers: those that get the tenant's events; positions of others hold nothing back.

        Returns:
            How many events were forgotten.
        """
        oldest = await self.undelivered_from(partition, handlers, tenant)
        oldest = min(oldest, _following(await self.folded(partition, tenant)))
        if before:
            oldest = min(oldest, (int(before.timestamp() * 1000), 0))
        minid = f"{oldest[0]}-{oldest[1]}"
        stream = keys.inbox(partition, tenant)
        return int(await self._redis.xtrim(stream, minid=minid, approximate=True))

    async def cut(
        self, partition: int, most: int, handlers: Iterable[str], tenant: str = ""
    ) -> Counter[str]:
        """Forget a tenant's oldest events beyond `most`, even those not finished.

        Returns:
            How many events each of the handlers will never get.
        """
        lost: Counter[str] = Counter()
        stream = keys.inbox(partition, tenant)
        while (excess := await self._redis.xlen(stream) - most) > 0:
            page: Any = await self._redis.xrange(stream, count=min(excess, _PAGE))
            cut = [position for position, _ in page]
            for name in handlers:
                read, pending = await place_of(self._redis, partition, tenant, name)
                unread = sum(order_of(position) > order_of(read) for position in cut)
                lost[name] += unread + len(set(cut) & set(pending))
            milliseconds, number = order_of(cut[-1])
            following = f"{milliseconds}-{number + 1}"
            await self._redis.xtrim(stream, minid=following, approximate=False)
        return +lost

    async def folded(self, partition: int, tenant: str = "") -> bytes:
        """How far the events have been folded into calls; those after it may need no folding."""
        found: Any = await self._redis.hget(keys.folded(partition), tenant)
        return bytes(found or START)

    async def undelivered_from(
        self, partition: int, handlers: Iterable[str], tenant: str = ""
    ) -> tuple[int, int]:
        """The position from which on a handler may not have finished an event."""
        starts = [(1 << 62, 0)]
        async with self._redis.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(keys.behind(partition, tenant))
            pipeline.hget(keys.read(partition), tenant)
            records, shared = await pipeline.execute()
        for name in handlers:
            read, pending = place(records.get(name.encode()), shared)
            starts += (_following(read), *map(order_of, pending[:1]))
        return min(starts)


def _following(position: bytes) -> tuple[int, int]:
    milliseconds, number = order_of(position)
    return milliseconds, number + 1
