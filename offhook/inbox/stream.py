"""`Inbox`: the log of accepted events, and how far each handler has come on it."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from offhook.inbox import keys
from offhook.inbox.appender import BLOCK_MS, Appender, Durability
from offhook.inbox.entries import (
    MOST_PARTITIONS,
    Batch,
    HandlerState,
    StreamFigures,
    circuit_seconds,
)
from offhook.inbox.numbering import Numbering
from offhook.inbox.partition import DUE, register
from offhook.inbox.positions import START, order_of, position_at, position_before
from offhook.inbox.scripts import script

_PAGE = 1000
_HANDLERS_AT_ONCE = 250  # and tenants


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
        self._figures: AsyncScript = redis.register_script(script("figures"))

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

    async def set_back(
        self, handler: str, since: datetime, tenant: str = "", found: "Replay | None" = None
    ) -> int:
        """Set the handler's position back to the first event accepted at or after `since`.

        A handler that is behind `since` stays where it is: moved forward, it would lose events. The
        server does it within a second, or when the next one starts.

        Args:
            found: what `read_since` has found, if it was asked.

        Returns:
            Number of events that the handler will get again.
        """
        if found is None:
            found = await self.read_since(handler, since, tenant)
        position = position_before(position_at(since)).encode()
        for partition in found.counts:
            replays = keys.replays(partition, tenant)
            asked: Any = await self.redis.hget(replays, handler)  # before, and not yet done
            async with self.redis.pipeline(transaction=True) as pipeline:
                pipeline.hset(replays, handler, min(asked or position, position, key=order_of))
                pipeline.sadd(keys.unfinished(partition), tenant)
                pipeline.zadd(keys.ready(partition), {DUE: 0})
                await pipeline.execute()
        return found.total

    async def read_since(self, handler: str, since: datetime, tenant: str = "") -> "Replay":
        """What the handler has read of the events accepted at or after `since`."""
        position = position_before(position_at(since))
        counts, accepted = {}, []
        for partition in range(self.partitions):
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
        read, _ = await self._position(partition, tenant, handler)
        following: Any = await self.redis.xrange(stream, "(" + position, read, 1)
        if not following:
            return 0, None
        last = await self._number(stream, read)
        return last - int(following[0][1][b"n"]) + 1, following[0][0]

    async def length(self, partition: int, tenant: str = "") -> int:
        """Return how many events a partition holds, including delivered ones."""
        return int(await self.redis.xlen(keys.inbox(partition, tenant)))

    async def state(self, handler: str, partition: int, tenant: str = "") -> HandlerState:
        """How far the handler has come in one partition."""
        return (await self.states([handler], partition, tenant))[handler]

    async def states(
        self, handlers: Sequence[str], partition: int, tenant: str = ""
    ) -> dict[str, HandlerState]:
        """How far each of the handlers has come in one partition."""
        return (await self.figures({tenant: handlers}, partition))[tenant].handlers

    async def figures(
        self, handlers: Mapping[str, Sequence[str]], partition: int
    ) -> dict[str, StreamFigures]:
        """The streams of some tenants in one partition, and how far their handlers have come."""
        found = {tenant: StreamFigures(0, 0, {}) for tenant in handlers}
        for step in _steps(handlers):
            arguments: list[Any] = [keys.partition_prefix(partition)]
            for tenant, names in step:
                arguments += [tenant, len(names), *names]
            answer: Any = await self._figures(keys=[keys.read(partition)], args=arguments)
            at = 0
            for tenant, names in step:
                figures = found[tenant]
                figures.last, figures.length = answer[at : at + 2]
                at += 2
                for name in names:
                    figures.handlers[name] = HandlerState(*answer[at : at + 6])
                    at += 6
        return found

    async def parked(self) -> Counter[str]:
        """How many calls of each handler wait for a redelivery."""
        found: Counter[str] = Counter()
        for partition in range(self.partitions):
            members: Any = await self.redis.hkeys(keys.parked(partition))
            found.update(member.decode().partition(" ")[0] for member in members)
        return found

    async def circuit_open_for(self, handler: str) -> float | None:
        """Seconds until the next probe while the handler's circuit is open."""
        left = await self.redis.pttl(keys.circuit(handler))
        return circuit_seconds(left) or None

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
        return int(await self.redis.xtrim(stream, minid=minid, approximate=True))

    async def folded(self, partition: int, tenant: str = "") -> bytes:
        """How far the events have been folded into calls; those after it may need no folding."""
        found: Any = await self.redis.hget(keys.folded(partition), tenant)
        return bytes(found or START)

    async def undelivered_from(
        self, partition: int, handlers: Iterable[str], tenant: str = ""
    ) -> tuple[int, int]:
        """The position from which on a handler may not have finished an event."""
        starts = [(1 << 62, 0)]
        async with self.redis.pipeline(transaction=True) as pipeline:
            pipeline.hgetall(keys.behind(partition, tenant))
            pipeline.hget(keys.read(partition), tenant)
            records, shared = await pipeline.execute()
        for name in handlers:
            read, pending = _place(records.get(name.encode()), shared)
            starts += (_following(read), *map(order_of, pending[:1]))
        return min(starts)

    async def cut(
        self, partition: int, most: int, handlers: Iterable[str], tenant: str = ""
    ) -> Counter[str]:
        """Forget a tenant's oldest events beyond `most`, even those not finished.

        Returns:
            How many events each of the handlers will never get.
        """
        lost: Counter[str] = Counter()
        stream = keys.inbox(partition, tenant)
        while (excess := await self.redis.xlen(stream) - most) > 0:
            page: Any = await self.redis.xrange(stream, count=min(excess, _PAGE))
            cut = [position for position, _ in page]
            for name in handlers:
                read, pending = await self._position(partition, tenant, name)
                unread = sum(order_of(position) > order_of(read) for position in cut)
                lost[name] += unread + len(set(cut) & set(pending))
            milliseconds, number = order_of(cut[-1])
            following = f"{milliseconds}-{number + 1}"
            await self.redis.xtrim(stream, minid=following, approximate=False)
        return +lost

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

    async def memory_used(self) -> float:
        """The part of `maxmemory` that the server uses; 0 without a limit."""
        memory: Any = await self.redis.info("memory")
        limit = memory.get("maxmemory", 0)
        return float(memory["used_memory"] / limit) if limit else 0.0

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

    async def _position(
        self, partition: int, tenant: str, handler: str
    ) -> tuple[bytes, list[bytes]]:
        """How far a handler has read, and the positions of events that it has not finished."""
        async with self.redis.pipeline(transaction=True) as pipeline:
            pipeline.hget(keys.behind(partition, tenant), handler)
            pipeline.hget(keys.read(partition), tenant)
            record, shared = await pipeline.execute()
        return _place(record, shared)

    async def _number(self, stream: str, position: bytes) -> int:
        """The number of the last event up to a position; 0 if there is none."""
        found: Any = await self.redis.xrevrange(stream, position, "-", 1)
        if found:
            return int(found[0][1][b"n"])
        first: Any = await self.redis.xrange(stream, count=1)
        return int(first[0][1][b"n"]) - 1 if first else 0


def _steps(handlers: Mapping[str, Sequence[str]]) -> Iterator[list[tuple[str, Sequence[str]]]]:
    """Divide the handlers of tenants: the server answers no one else during a step."""
    step: list[tuple[str, Sequence[str]]] = []
    room = _HANDLERS_AT_ONCE
    for tenant, names in handlers.items():
        for at in range(0, max(1, len(names)), _HANDLERS_AT_ONCE):
            some = names[at : at + _HANDLERS_AT_ONCE]
            if step and len(some) >= room:
                yield step
                step, room = [], _HANDLERS_AT_ONCE
            step.append((tenant, some))
            room -= len(some) + 1
    yield step


def _following(position: bytes) -> tuple[int, int]:
    milliseconds, number = order_of(position)
    return milliseconds, number + 1


def _place(record: bytes | None, shared: bytes | None) -> tuple[bytes, list[bytes]]:
    """How far a handler has read, and what it has not finished: see `behind` in the keys' page."""
    own, *pending = (record or b"-").split(b" ")
    return (shared or START) if own == b"-" else own, pending
