"""`Replays`: lets handlers have events again, by setting back their positions."""

from datetime import UTC, datetime
from typing import Any

import msgspec

from offhook.inbox import keys
from offhook.inbox.partition import DUE
from offhook.inbox.positions import order_of, position_at, position_before
from offhook.inbox.stream import Inbox
from offhook.inbox.stream_state import place_of


class Replay(msgspec.Struct, frozen=True):
    """Events that a handler has read, and can get again.

    Attributes:
        counts: partition -> number of events.
        first: when the first one was accepted; None if there is none.
    """

    counts: dict[int, int]
    first: datetime | None

    @property
    def total(self) -> int:
        """Number of events."""
        return sum(self.counts.values())


class Replays:
    """Sets handlers back. Their servers do it within a second, or when the next one starts."""

    def __init__(self, inbox: Inbox) -> None:
        self._redis = inbox.redis
        self._inbox = inbox

    async def set_back(
        self, handler: str, since: datetime, tenant: str = "", found: Replay | None = None
    ) -> int:
        """Set the handler's position back to the first event accepted at or after `since`.

        A handler that is behind `since` stays where it is: moved forward, it would lose events.

        Args:
            found: what `find` has found, if it was asked.

        Returns:
            Number of events that the handler will get again.
        """
        if found is None:
            found = await self.find(handler, since, tenant)
        position = position_before(position_at(since)).encode()
        for partition in found.counts:
            replays = keys.replays(partition, tenant)
            asked: Any = await self._redis.hget(replays, handler)  # before, and not yet done
            async with self._redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(replays, handler, min(asked or position, position, key=order_of))
                pipeline.sadd(keys.unfinished(partition), tenant)
                pipeline.zadd(keys.ready(partition), {DUE: 0})
                await pipeline.execute()
        return found.total

    async def find(self, handler: str, since: datetime, tenant: str = "") -> Replay:
        """What the handler has read of the events accepted at or after `since`."""
        position = position_before(position_at(since))
        counts, accepted = {}, []
        for partition in range(self._inbox.partitions):
            count, first = await self._read_since(handler, partition, position, tenant)
            if first:
                counts[partition] = count
                accepted.append(order_of(first)[0])
        if not accepted:
            return Replay({}, None)
        return Replay(counts, datetime.fromtimestamp(min(accepted) / 1000, UTC))

    async def _read_since(
        self, handler: str, partition: int, position: str, tenant: str
    ) -> tuple[int, bytes | None]:
        """How many events after a position the handler has read, and the first one's position."""
        stream = keys.inbox(partition, tenant)
        read, _ = await place_of(self._redis, partition, tenant, handler)
        following: Any = await self._redis.xrange(stream, "(" + position, read, 1)
        if not following:
            return 0, None
        last = await self._number(stream, read)
        return last - int(following[0][1][b"n"]) + 1, following[0][0]

    async def _number(self, stream: str, position: bytes) -> int:
        """The number of the last event up to a position; 0 if there is none."""
        found: Any = await self._redis.xrevrange(stream, position, "-", 1)
        if found:
            return int(found[0][1][b"n"])
        first: Any = await self._redis.xrange(stream, count=1)
        return int(first[0][1][b"n"]) - 1 if first else 0
