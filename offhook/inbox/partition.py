"""`Partition`: one partition of the inbox as a server sees it, fenced by the server's lease."""

from collections.abc import Awaitable, Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from offhook.inbox import keys
from offhook.inbox.due_times import DueTimes
from offhook.inbox.leases import LEASE_MS, Lease
from offhook.inbox.record_part import RecordPart
from offhook.inbox.scripts import script
from offhook.inbox.stream_state import StreamState, by_name

_TENANTS_AT_ONCE = 500
DUE = "*"  # among the marks of ready tenants: look at the redeliveries and replays

Item = tuple[bytes, bytes]  # position, stored event; an empty one was deleted
# Tenant, position read, whether all is finished, pools to wake, handlers and their records, and
# those that are written only for handlers without one of their own.
StreamChange = tuple[str, str, int, Sequence[str], Sequence[str], Sequence[str]]
_encode = msgspec.json.Encoder().encode


@dataclass
class Changes:
    """What a server did since its last flush; see flush.lua.

    Attributes:
        streams: the positions in each tenant's stream.
        lanes: changes of parked lanes, in order.
        stored: the events that these push.
        counts: handler and outcome -> number.
        record: the attempts that were made.
        latencies: fields of `keys.latency`, and the number to add to each.
    """

    streams: list[StreamChange] = field(default_factory=list)
    lanes: list[tuple[Any, ...]] = field(default_factory=list)
    stored: list[bytes] = field(default_factory=list)
    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    record: list[RecordPart] = field(default_factory=list)
    latencies: list[tuple[str, int]] = field(default_factory=list)


class Partition:
    """One partition, served by one process at a time for each pool of handlers.

    Every change is fenced: once another server holds the lease, this one changes nothing.

    Args:
        redis: a client that returns bytes.
        waiting: a client for commands that block and must not be repeated blindly.
        number: of the partition.
        pool: the pool of handlers; the shared one if empty.
        token: of the lease, unique to the server.
    """

    def __init__(
        self, redis: Redis, waiting: Redis, number: int, pool: str = "", token: str | None = None
    ) -> None:
        self.number = number
        self.pool = pool
        self.lease = Lease(redis, number, pool, token)
        self.due_times = DueTimes(redis, waiting, number, pool, self.lease)
        self.redis = redis
        self._waiting = waiting
        self._prefix = keys.partition_prefix(number)
        self._ready = keys.ready(number, pool)
        self._unfinished = keys.unfinished(number, pool)
        self._read = keys.read(number, pool)
        self._flush_keys = [
            self.lease.key,
            keys.flushed(number, pool),
            self._read,
            self._unfinished,
            keys.due(number, pool),
            keys.redelivering(number, pool),
            keys.parked(number),
            keys.attempts(number),
            keys.owners(number),
        ]
        self._flushes = 0
        self._saves = 0
        self._claim: AsyncScript = redis.register_script(script("claim"))
        self._flush: AsyncScript = redis.register_script(script("flush"))
        self._replayed: AsyncScript = redis.register_script(script("replayed"))

    # Handlers of pools

    async def claim(self, handlers: Sequence[str], others: Mapping[str, str]) -> set[str]:
        """Claim handlers for the pool. Returns those that another pool still serves.

        Args:
            others: handlers to give to these other pools, if they belong to this one.

        Raises:
            LeaseLost: another server serves the partition.
        """
        pairs = [each for pair in others.items() for each in pair]
        answer: Any = await self._claim(
            keys=[
                self.lease.key,
                keys.owners(self.number),
                keys.read(self.number),
                self._unfinished,
                self._ready,
            ],
            args=[self.lease.token, self.pool, self._prefix, len(handlers), *handlers, *pairs],
        )
        if answer == -1:
            raise self.lease.lost()
        return {name.decode() for name in answer}

    # Reading

    async def marks(self, seconds: float) -> list[str]:
        """Wait for tenants with unread events (or `DUE`) and take their marks."""
        answer: Any = await self._waiting.bzmpop(seconds, 1, [self._ready], min=True, count=256)
        return [mark.decode() for mark, _ in answer[1]] if answer else []

    async def unfinished(self) -> list[str]:
        """The tenants with events that may not be finished."""
        found: Any = await self.redis.smembers(self._unfinished)
        return [tenant.decode() for tenant in found]

    async def to_load(self, handlers: Collection[str]) -> list[str]:
        """The tenants to begin with: those with unfinished events; for a pool all of them.

        What other servers left to a pool need not be noted among its unfinished events, nor what
        came while one of the handlers was not configured.
        """
        found: Any = await self.redis.hkeys(keys.read(self.number))
        tenants = [tenant.decode() for tenant in found]
        if self.pool:
            return tenants
        unfinished = await self.unfinished()
        others = sorted(set(tenants).difference(unfinished))
        for at in range(0, len(others), _TENANTS_AT_ONCE):
            some = others[at : at + _TENANTS_AT_ONCE]
            tables = [keys.behind(self.number, tenant) for tenant in some]
            if not await self.redis.exists(*tables):  # as a rule
                continue
            async with self.redis.pipeline(transaction=False) as pipeline:
                for table in tables:
                    pipeline.hkeys(table)
                names = await pipeline.execute()
            unfinished += [
                tenant
                for tenant, its in zip(some, names, strict=True)
                if any(name.decode() in handlers for name in its)
            ]
        return unfinished

    async def load(self, tenants: Sequence[str]) -> list[StreamState]:
        """The state of these tenants' streams."""
        async with self.redis.pipeline(transaction=True) as pipeline:
            for tenant in tenants:
                pipeline.hget(self._read, tenant)
                pipeline.hget(keys.read(self.number), tenant)
                pipeline.hget(keys.folded(self.number), tenant)
                pipeline.hgetall(keys.behind(self.number, tenant))
                pipeline.hkeys(keys.known(self.number, tenant))
                pipeline.hgetall(keys.replays(self.number, tenant))
            found = await pipeline.execute()
        return [
            StreamState.from_redis(tenant, *found[at : at + 6])
            for tenant, at in zip(tenants, range(0, len(found), 6), strict=True)
        ]

    async def replays(self, tenants: Sequence[str]) -> dict[str, dict[str, bytes]]:
        """The handlers to be set back in each tenant's stream, and to where."""
        async with self.redis.pipeline(transaction=False) as pipeline:
            for tenant in tenants:
                pipeline.hgetall(keys.replays(self.number, tenant))
            found = await pipeline.execute()
        return dict(zip(tenants, map(by_name, found), strict=True))

    async def register(self, tenant: str, starts: Mapping[str, str]) -> None:
        """Give these handlers a position, each unless it has one: `now` or `earliest`."""
        await register(self.redis, self.number, tenant, starts)

    async def read(self, after: Mapping[str, bytes], count: int) -> dict[str, list[Item]]:
        """The next events of each tenant, at most `count` of each.

        Args:
            after: tenant -> position.
        """
        names = {keys.inbox(self.number, tenant): tenant for tenant in after}
        streams: Any = {name: after[tenant] for name, tenant in names.items()}
        answer: Any = await self.redis.xread(streams, count=count)
        return {names[stream.decode()]: _items(items) for stream, items in answer or ()}

    async def range(self, tenant: str, after: bytes, until: bytes, count: int) -> list[Item]:
        """The events after a position, up to another."""
        found: Any = await self.redis.xrange(
            keys.inbox(self.number, tenant), b"(" + after, until, count
        )
        return _items(found)

    async def events_at(self, tenant: str, positions: Iterable[bytes]) -> list[Item]:
        """The events at these positions that the inbox still has."""
        stream = keys.inbox(self.number, tenant)
        async with self.redis.pipeline(transaction=False) as pipeline:
            for position in positions:
                pipeline.xrange(stream, position, position)
            found = await pipeline.execute()
        return [item for items in found for item in _items(items)]

    async def pass_on_replays(self, tenant: str, pool: str) -> None:
        """Let another pool look at the replays of its handlers."""
        async with self.redis.pipeline(transaction=True) as pipeline:
            pipeline.sadd(keys.unfinished(self.number, pool), tenant)
            pipeline.zadd(keys.ready(self.number, pool), {DUE: 0})
            await pipeline.execute()

    # Writing

    def numbered(self, changes: Changes) -> Callable[[], Awaitable[list[bytes]]]:
        """Give changes a number. Returns what writes them in one step, once however often called.

        It returns for each `advance` the lane's next event, or b"".

        Raises:
            LeaseLost: another server serves the partition; nothing was written.
        """
        self._flushes += 1
        counts = [(*name, number) for name, number in changes.counts.items()]
        tenants = [part.tenant for part in changes.record]
        described = _encode((changes.streams, changes.lanes, counts, tenants, changes.latencies))
        arguments: list[Any] = [self.lease.token, self._flushes, LEASE_MS, self._prefix, described]
        for part in changes.record:
            arguments += part.dump()
        arguments += changes.stored

        async def flush() -> list[bytes]:
            answer: Any = await self._flush(keys=self._flush_keys, args=arguments)
            if answer == -1:
                raise self.lease.lost()
            return list(answer)

        return flush

    def next_save(self) -> int:
        """The number of the next save of calls."""
        self._saves += 1
        return self._saves

    async def replayed(self, tenant: str, handler: str, position: bytes) -> None:
        """Forget a replay that is in the handler's record now, but not a later one."""
        await self._replayed(keys=[keys.replays(self.number, tenant)], args=[handler, position])


async def register(redis: Redis, number: int, tenant: str, starts: Mapping[str, str]) -> None:
    """Give handlers a position on a tenant's stream, each unless it has one.

    Args:
        number: of the partition.
        starts: handler -> `now` or `earliest`.
    """
    known: Any = await redis.hkeys(keys.known(number, tenant))
    new = {name: start for name, start in starts.items() if name.encode() not in known}
    if not new:
        return
    await redis.register_script(script("register"))(
        keys=[
            keys.inbox(number, tenant),
            keys.known(number, tenant),
            keys.behind(number, tenant),
            keys.unfinished(number),
            keys.ready(number),
            keys.read(number),
        ],
        args=[tenant, *(each for pair in new.items() for each in pair)],
    )


def _items(found: Any) -> list[Item]:
    return [(position, fields[b"e"]) for position, fields in found]
