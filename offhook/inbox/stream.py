"""`Inbox`: the log of accepted events, and which handlers have a position on it."""

from collections.abc import Mapping
from typing import Any

from redis.asyncio import Redis

from offhook.inbox import keys
from offhook.inbox.appender import BLOCK_MS, Appender, Durability
from offhook.inbox.entries import MOST_PARTITIONS, Batch
from offhook.inbox.numbering import Numbering
from offhook.inbox.partition import register


class Inbox:
    """The inbox on one Redis or Valkey server.

    Args:
        redis: a client that returns bytes.
        partitions: number of streams that the events are spread over, unless Redis knows better.
        durability: where an appended event must be, as in the settings.
        replicas: how many replicas must have it, with `durability` "replica".
    """

    def __init__(
        self,
        redis: Redis,
        partitions: int,
        durability: Durability = "server",
        replicas: int | None = None,
    ) -> None:
        self.redis = redis
        self.numbering = Numbering(redis, partitions)
        self._appender = Appender(redis, self.numbering, durability, replicas or 1)

    @property
    def partitions(self) -> int:
        """Number of partitions that may have events."""
        return self.numbering.partitions

    async def append(
        self,
        batch: Batch,
        duplicate_window: float,
        patience: float = BLOCK_MS / 1000,
    ) -> set[int]:
        """Append a batch, as `Appender.append` does."""
        return await self._appender.append(batch, duplicate_window, patience)

    async def register(self, starts: Mapping[str, str], tenant: str = "") -> None:
        """Give handlers a position in every partition where they have none.

        Args:
            starts: handler -> `now` or `earliest`.
        """
        for partition in range(self.partitions):
            await register(self.redis, partition, tenant, starts)

    async def positions(self) -> list[int]:
        """How many handlers have a position, for each partition."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            for partition in range(self.partitions):
                pipeline.hlen(keys.known(partition))
            found: list[int] = await pipeline.execute()
        return found

    async def length(self, partition: int, tenant: str = "") -> int:
        """Return how many events a partition holds, including delivered ones."""
        return int(await self.redis.xlen(keys.inbox(partition, tenant)))

    async def tenants(self, partition: int) -> list[str]:
        """The tenants that have ever had an event in a partition."""
        found: Any = await self.redis.hkeys(keys.read(partition))
        return sorted({tenant.decode() for tenant in found} | {""})

    async def beyond(self) -> list[int]:
        """The partitions above ours that exist because `partitions` was larger once."""
        numbers = range(self.partitions, MOST_PARTITIONS)
        async with self.redis.pipeline(transaction=False) as pipeline:
            for number in numbers:
                pipeline.exists(keys.inbox(number), keys.read(number))
            found = await pipeline.execute()
        return [number for number, exists in zip(numbers, found, strict=True) if exists]

    async def leftover(self, pool: str = "") -> list[int]:
        """Those of them where a pool of handlers, or a call, is not finished."""
        numbers = await self.beyond()
        async with self.redis.pipeline(transaction=False) as pipeline:
            for number in numbers:
                its = [keys.unfinished(number, pool), keys.due(number, pool)]
                if not pool:
                    its += [keys.live(number), keys.settling(number)]
                pipeline.exists(*its)
            found = await pipeline.execute()
        return [number for number, exists in zip(numbers, found, strict=True) if exists]

    async def known(self, tenant: str = "") -> set[str]:
        """The handlers that have a position, configured or not."""
        names: set[str] = set()
        for partition in range(self.partitions):
            found: Any = await self.redis.hkeys(keys.known(partition, tenant))
            names |= {name.decode() for name in found}
        return names

    async def forget(self, handler: str) -> None:
        """Delete a handler's positions and parked lanes."""
        for partition in range(self.partitions):
            tenants = await self.tenants(partition)
            members: Any = await self.redis.hkeys(keys.parked(partition))
            async with self.redis.pipeline(transaction=True) as pipeline:
                for member in members:
                    name, _, call = member.decode().partition(" ")
                    if name == handler:
                        pipeline.delete(keys.lane(partition, handler, call))
                        pipeline.hdel(keys.parked(partition), member)
                        pipeline.hdel(keys.attempts(partition), member)
                        pipeline.zrem(keys.due(partition), member)
                        pipeline.srem(keys.redelivering(partition), member)
                pipeline.delete(keys.counts(partition, handler))
                for tenant in tenants:
                    for table in (keys.known, keys.behind, keys.replays):
                        pipeline.hdel(table(partition, tenant), handler)
                await pipeline.execute()
        await self.redis.delete(keys.circuit(handler))
        await self.redis.hdel(keys.PAUSED, handler)
