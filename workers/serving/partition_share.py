"""`PartitionShare`: the partitions that a server serves, as long as their leases are its own."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from redis.asyncio import Redis
from redis.exceptions import RedisError

from offhook.errors import LeaseLost
from offhook.inbox import Inbox, keys
from offhook.inbox.leases import LEASE_MS
from offhook.inbox.partition import Partition
from offhook.redis_servers import grouped
from offhook.tasks import asked_to_end, end
from workers.serving.served_partition import ServedPartition

if TYPE_CHECKING:
    from workers.serving.partition_server import Server

log = logging.getLogger("offhook.serve")

RENEW_EVERY = 1.0  # seconds
TAKE_EVERY = 0.05  # seconds between attempts to take partitions that another server gives back
EAGER_FOR = 10.0  # seconds for which these attempts are made
SURE_FOR = LEASE_MS / 1000 * 0.8  # shorter than on the server, for clock drift


class PartitionShare:
    """A server's share of the partitions, which changes as other servers come and go.

    Args:
        inbox: with a client that retries.
        waiting: a client that does not, for commands that block.

    Attributes:
        partitions: those that are served, by number.
    """

    def __init__(self, server: "Server", inbox: Inbox, waiting: Redis) -> None:
        self.partitions: dict[int, ServedPartition] = {}
        self._server = server
        self._leases = server.leases
        self._inbox = inbox
        self._waiting = waiting
        self._share = 0
        self._eager_until = 0.0
        self._sure_until: dict[int, float] = {}  # by partition
        self._asking: set[int] = set()  # whether these are still ours; -1: which share is
        self._unanswered: set[int] = set()
        self._serving: dict[int, asyncio.Task[None]] = {}

    def check_lease(self, partition: int) -> None:
        """Raise `LeaseLost` unless this process certainly holds the partition's lease."""
        if time.monotonic() > self._sure_until.get(partition, 0.0):
            raise LeaseLost(f"cannot renew the lease of partition {partition}")

    async def add_leftover_partitions(self) -> None:
        leftover = await self._inbox.leftover(self._server.pool)
        if leftover:
            log.warning(
                "`partitions` was lowered to %s: partition %s has unfinished events, and is "
                "served, too",
                self._inbox.partitions,
                ", ".join(map(str, leftover)),
            )
            self._leases.add(leftover)

    async def add_new_partitions(self) -> None:
        """Serve partitions that the receivers have begun to use."""
        await self._inbox.numbering.load()
        new = [*set(range(self._inbox.partitions)).difference(self._leases.order)]
        if new:
            log.info("serves %s partitions now", self._inbox.partitions)
            self._leases.add(sorted(new))

    async def keep(self) -> None:
        """Renew the leases on each server, and keep up with the number of processes."""
        while not asked_to_end():
            if -1 not in self._asking:
                self._server.run_beside(self._ask({-1}, self._count))
            held = sorted(self.partitions.keys() - self._asking)
            # One that does not answer must not hold up the others.
            for some in grouped(self._inbox.redis, held, keys.serving):
                self._server.run_beside(self._ask({*some}, partial(self._renew, some)))
            # When another server is dead, its partitions wait for no whole second more.
            until_death = self._leases.next_death + TAKE_EVERY - time.monotonic()
            await asyncio.sleep(min(RENEW_EVERY, until_death) if until_death > 0 else RENEW_EVERY)

    async def _ask(self, what: set[int], ask: Callable[[], Awaitable[None]]) -> None:
        self._asking |= what
        try:
            await ask()
            self._unanswered -= what
            if not self._unanswered:
                self._server.outage.is_over()
        except RedisError as error:
            self._unanswered |= what
            self._server.outage.goes_on(error)
        finally:
            self._asking -= what

    async def _count(self) -> None:
        asked = time.monotonic()
        share = await self._leases.share()
        if share > self._share:  # another server leaves
            self._eager_until = asked + EAGER_FOR
        self._share = share

    async def _renew(self, numbers: Sequence[int]) -> None:
        """Renew the leases of partitions on one server.

        Raises:
            LeaseLost: another process serves one of them.
        """
        asked = time.monotonic()
        held = [(number, self.partitions.get(number)) for number in numbers]
        tokens = {number: each.partition.lease.token for number, each in held if each is not None}
        lost = await self._leases.renew(tokens)
        for number, token in tokens.items():
            served = self.partitions.get(number)
            # Else it was given back, or its lease taken anew, meanwhile.
            if served is not None and served.partition.lease.token == token:
                if number in lost:
                    raise LeaseLost(f"another process serves partition {number}")
                self._sure_until[number] = asked + SURE_FOR

    async def adapt(self) -> None:
        """Take and give back partitions as other servers come and go."""
        while not asked_to_end():
            try:
                held = [number for number, each in self.partitions.items() if not each.closed]
                await asyncio.gather(*(self.give_back(number) for number in held[self._share :]))
            except RedisError as error:
                self._server.outage.goes_on(error)
            for number in self._leases.order:
                if len(self.partitions) >= self._share or self._server.stopping:
                    break
                if number not in self.partitions:
                    try:
                        await self._take(number)
                    except RedisError as error:  # those on other servers may be free
                        self._server.outage.goes_on(error)
            lacks = len(self.partitions) < self._share
            eager = lacks and time.monotonic() < self._eager_until
            await asyncio.sleep(TAKE_EVERY if eager else RENEW_EVERY / 4)

    async def leave(self) -> None:
        with suppress(RedisError):  # its sign of life expires
            if await self._leases.leave():
                await asyncio.sleep(RENEW_EVERY)  # others learn that all partitions are theirs
        await asyncio.gather(*(self.give_back(number) for number in [*self._serving]))

    async def give_back(self, number: int) -> None:
        served, task = self.partitions[number], self._serving[number]
        draining = asyncio.create_task(served.drain())
        await asyncio.wait((draining, task), return_when=asyncio.FIRST_COMPLETED)
        if draining.done() and not draining.result():
            await asyncio.wait((task,))  # a cancellation would hide its error
        await end(draining, task)
        if task.cancelled():  # otherwise it has failed, which ends the server
            served.drop()
            self.partitions.pop(number, None)
            self._serving.pop(number, None)
            await served.partition.lease.release()

    async def _take(self, number: int) -> None:
        partition = Partition(self._inbox.redis, self._waiting, number, self._server.pool)
        asked = time.monotonic()
        if await partition.lease.take() > 0:
            return
        if self._server.stopping:
            await partition.lease.release()
            return
        self._sure_until[number] = asked + SURE_FOR
        self.partitions[number] = served = ServedPartition(self._server, partition)
        self._serving[number] = self._server.run_beside(served.run())

    async def release(self) -> None:
        """Free the leases at once, though deliveries may run: their tasks have ended."""
        for served in self.partitions.values():
            await served.partition.lease.release()
        await self._leases.leave()
