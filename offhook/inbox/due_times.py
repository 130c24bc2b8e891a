"""`DueTimes`: the parked lanes of a partition, and when their redeliveries are due."""

from typing import Any

import msgspec
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from offhook.inbox import keys
from offhook.inbox.leases import Lease
from offhook.inbox.scripts import script


class Begun(msgspec.Struct, frozen=True):
    """A redelivery that was due: the event that its lane waits for, and which attempt it is."""

    handler: str
    call: str
    attempt: int
    stored: bytes


class DueTimes:
    """When the redeliveries of a partition are due, for one pool of handlers.

    Args:
        redis: a client that returns bytes.
        waiting: a client for commands that must not be repeated blindly.
        number: of the partition.
        pool: the pool of handlers; the shared one if empty.
        lease: to begin redeliveries takes it.
    """

    def __init__(self, redis: Redis, waiting: Redis, number: int, pool: str, lease: Lease) -> None:
        self._redis = redis
        self._number = number
        self._lease = lease
        self._pools = (pool, "") if pool else ("",)
        self._due = keys.due(number, pool)
        self._redelivering = keys.redelivering(number, pool)
        self._begin: AsyncScript = waiting.register_script(script("begin"))

    async def parked(self) -> list[tuple[str, str]]:
        """The parked lanes, of all pools: handler and call of each."""
        found: Any = await self._redis.hkeys(keys.parked(self._number))
        return [_member(each) for each in found]

    async def scheduled(self) -> list[tuple[str, str]]:
        """The redeliveries that are due at some time, or have begun: handler and call of each.

        A pool's includes those that the shared one will pass on.
        """
        async with self._redis.pipeline(transaction=True) as pipeline:  # none moves meanwhile
            for pool in self._pools:
                pipeline.zrange(keys.due(self._number, pool), 0, -1)
                pipeline.smembers(keys.redelivering(self._number, pool))
            found = await pipeline.execute()
        return [_member(each) for members in found for each in members]

    async def begun(self) -> list[tuple[str, str]]:
        """The redeliveries that have begun, by whatever process: handler and call of each."""
        found: Any = await self._redis.smembers(self._redelivering)
        return [_member(each) for each in found]

    async def begin(self, now: float, most: int) -> tuple[float | None, list[Begun]]:
        """Begin redeliveries that are due; also return when the next one is.

        Times are in seconds since 1970.

        Raises:
            LeaseLost: another server serves the partition.
        """
        answer: Any = await self._begin(
            keys=[
                self._lease.key,
                self._due,
                self._redelivering,
                keys.parked(self._number),
                keys.attempts(self._number),
            ],
            args=[self._lease.token, int(now * 1000), most, keys.partition_prefix(self._number)],
        )
        if answer == -1:
            raise self._lease.lost()
        begun = [
            Begun(*_member(answer[at]), int(answer[at + 1]), answer[at + 2])
            for at in range(1, len(answer), 3)
        ]
        return float(answer[0]) / 1000 if answer[0] else None, begun

    async def bring_forward(self, seconds: float) -> None:
        """Make all redeliveries due earlier, because the clock was set back."""
        waiting: Any = await self._redis.zrange(self._due, 0, -1)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for member in waiting:
                pipeline.zadd(self._due, {member: -seconds * 1000}, xx=True, incr=True)
            await pipeline.execute()


def _member(member: bytes) -> tuple[str, str]:
    handler, _, call = member.decode().partition(" ")
    return handler, call
