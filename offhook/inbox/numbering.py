"""`Numbering`: the number of partitions, which may change, and the partition of each call.

A call is in the partition that its name and the number of partitions say. When the number changes,
a call that has begun stays where it is, with its events, its facts and its parked lanes; only calls
that begin later are spread over the new number. So all events of a call are in one partition.

Each change begins an epoch. A process that appends fences all partitions before it makes use of a
new epoch: a fence refuses appends of processes that know only an earlier one. From then on it is
settled which calls have begun, and a look into the store tells them from new ones.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from functools import partial
from typing import Any, cast

import msgspec
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from offhook.errors import LaterLayout
from offhook.event import call_name
from offhook.inbox import keys
from offhook.inbox.entries import partition_of_call
from offhook.inbox.partition import register
from offhook.inbox.positions import START
from offhook.inbox.scripts import script

log = logging.getLogger("offhook.inbox")

LAYOUT = 1  # of the keys; raised by a change that the version before cannot read or would damage
_PAGE = 500  # events
# Partitions that are prepared side by side. One after the other, they take longer than `patience`
# if the server is far away or busy. Then receivers use their journals meanwhile, each its own, and
# a call whose events come to two of them is out of order.
_AT_ONCE = 16
_MOST_PLACES = 50_000  # calls whose partition is remembered
_KEPT_FOR = 2.0  # times `keep_days`: an earlier number counts for so long


class _Name(msgspec.Struct):
    pbx: str
    call_id: str
    tenant: str = ""


_decode = msgspec.json.Decoder(_Name).decode


def name_of(stored: bytes | msgspec.Raw) -> str:
    """The name of a stored event's call."""
    name = _decode(stored)
    return call_name(name.pbx, name.call_id, name.tenant)


class Numbering:
    """What this process knows of the number of partitions.

    Args:
        configured: `partitions` in this process's configuration; it holds until Redis says more.

    Attributes:
        current: the number that new calls are spread over.
        earlier: other numbers that calls in the store may have been spread over.
        epoch: the epoch in which this process appends; 0 if there is none yet.
        known: whether appends may rely on all this.
    """

    def __init__(self, redis: Redis, configured: int) -> None:
        self.configured = configured
        self.current = configured
        self.earlier: tuple[int, ...] = ()
        self.epoch = 0
        self.known = False
        self._knowing = asyncio.Lock()
        self._redis = redis
        self._places: dict[str, int] = {}
        self._announce: AsyncScript = redis.register_script(script("announce"))
        self._fence: AsyncScript = redis.register_script(script("fence"))

    @property
    def partitions(self) -> int:
        """Number of partitions that may have events."""
        return max(self.current, *self.earlier, 1)

    @property
    def settled(self) -> bool:
        """Whether every call is where the configured number says."""
        return not self.earlier and self.current == self.configured

    def candidates(self, name: str) -> list[int]:
        """The partitions that a call may be in, the one for a new call first."""
        numbers = (self.current, *self.earlier)
        return list(dict.fromkeys(partition_of_call(name, number) for number in numbers))

    async def load(self) -> None:
        """Read the numbers, for a process that looks at partitions.

        Raises:
            LaterLayout: this version cannot use the inbox.
        """
        record: Any = await self._redis.hgetall(keys.PARTITIONS)
        if self._take(record) != self.epoch:
            self.known = False  # the fences may not be there

    async def know(self) -> None:
        """Read the numbers once, for a process that appends, and fence what they ask for."""
        if not self.known:
            async with self._knowing:
                if not self.known:
                    await self._adopt()

    def holds(self, epoch: int) -> bool:
        """Return whether an epoch goes on, as far as this process knows."""
        return self.known and self.epoch == epoch

    def is_over(self, epoch: int) -> None:
        """Read the numbers again before the next append, unless that was done since this epoch."""
        if epoch == self.epoch:
            self.known = False

    async def announce(self) -> None:
        """Make the configured number the one that new calls are spread over.

        Raises:
            LaterLayout: this version cannot use the inbox, and has changed nothing.
        """
        await self.load()
        before = await self._announce(keys=[keys.PARTITIONS], args=[self.configured, LAYOUT])
        if before and int(before) != self.configured:
            log.warning(
                "`partitions` was changed from %s to %s: calls that have begun stay where they are",
                int(before),
                self.configured,
            )
        self.known = False
        await self.know()

    async def keep_up(self) -> None:
        """Read the numbers after Redis was away; announce the configured one if they are lost."""
        if await self._redis.exists(keys.PARTITIONS):
            self.known = False
            await self.know()
        else:
            await self.announce()

    async def places(self, names: Iterable[str]) -> dict[str, int]:
        """The partition of each call."""
        epoch = self.epoch
        found: dict[str, int] = {}
        unknown: list[tuple[str, list[int]]] = []
        for name in dict.fromkeys(names):
            current, *others = self.candidates(name)
            if not others:
                found[name] = current
            elif name in self._places:
                found[name] = self._places[name]
            else:
                unknown.append((name, others))
                found[name] = current
        if not unknown:
            return found
        async with self._redis.pipeline(transaction=False) as pipeline:
            for name, others in unknown:
                first = name.partition("~")[0]
                for partition in others:
                    pipeline.exists(keys.call(partition, first), keys.call(partition, name))
                    pipeline.smismember(keys.staying(partition), [first, name])
            answers = iter(await pipeline.execute())
        for name, others in unknown:
            for partition in others:
                stored, staying = next(answers), next(answers)
                if stored or any(staying):
                    found[name] = partition
        if len(self._places) > _MOST_PLACES:
            self._places.clear()
        if self.holds(epoch):
            self._places |= {name: found[name] for name, _ in unknown}
        return found

    async def retire(self, keep_days: float) -> None:
        """Forget earlier numbers whose calls have all expired."""
        record: Any = await self._redis.hgetall(keys.PARTITIONS)
        seconds, _ = await self._redis.time()
        oldest = (seconds - _KEPT_FOR * keep_days * 86_400) * 1000
        earlier = _earlier(record)
        over = [number for number, until in earlier.items() if until < oldest]
        if over:
            await self._redis.hdel(keys.PARTITIONS, *map(str, over))
        if over and len(over) == len(earlier):
            for partition in range(self.partitions):
                await self._redis.delete(keys.staying(partition))

    def _take(self, record: dict[bytes, bytes]) -> int:
        """Take over the numbers of a record. Return its epoch."""
        check_layout(record)
        self._places.clear()
        self.current = int(record.get(b"current", self.configured))
        self.earlier = tuple(_earlier(record))
        return int(record.get(b"epoch", 0))

    async def _adopt(self) -> None:
        record: Any = await self._redis.hgetall(keys.PARTITIONS)
        epoch = self._take(record)
        if self.earlier:
            async with self._redis.pipeline(transaction=False) as pipeline:
                for partition in range(self.partitions):
                    pipeline.hkeys(keys.known(partition))
                    pipeline.get(keys.epoch(partition))
                found: Any = await pipeline.execute()
            await self._register(found[::2])
            fences = enumerate(found[1::2])
            behind = [partition for partition, fence in fences if int(fence or 0) < epoch]
            await _side_by_side(partial(self._put_fence, epoch), behind)
        self.epoch, self.known = epoch, True

    async def _register(self, known: Sequence[Collection[bytes]]) -> None:
        """Give the handlers positions in partitions that nothing was ever in.

        Those of a tenant's events begin with the first one that is not read: see register.lua.

        Args:
            known: the handlers that have a position, of each partition.
        """
        starts = dict.fromkeys((name.decode() for names in known for name in names), "now")

        async def give_positions(partition: int) -> None:
            await register(self._redis, partition, "", starts)

        new = [partition for partition, names in enumerate(known) if not names]
        await _side_by_side(give_positions, new)

    async def _put_fence(self, epoch: int, partition: int) -> None:
        looked: dict[bytes, bytes] = {}
        while not await self._fence(
            keys=[
                keys.epoch(partition),
                keys.staying(partition),
                keys.unfinished(partition),
                keys.folded(partition),
            ],
            args=[
                epoch,
                keys.partition_prefix(partition),
                _PAGE,
                *(each for pair in looked.items() for each in pair),
            ],
        ):
            tenants: Any = await self._redis.smembers(keys.unfinished(partition))
            for tenant in tenants:
                if tenant not in looked:
                    folded: Any = await self._redis.hget(keys.folded(partition), tenant)
                    looked[tenant] = folded or START
                looked[tenant] = await self._look(partition, tenant, looked[tenant])

    async def _look(self, partition: int, tenant: bytes, position: bytes) -> bytes:
        """Note the calls of a stream's events after a position. Return that of the last event."""
        stream = keys.inbox(partition, tenant.decode())
        while page := cast(Any, await self._redis.xrange(stream, b"(" + position, "+", _PAGE)):
            position = page[-1][0]
            names = {name for _, fields in page if (name := _readable(fields[b"e"]))}
            if names:
                await self._redis.sadd(keys.staying(partition), *names)
            if len(page) < _PAGE:
                break
        return position


async def _side_by_side(work: Callable[[int], Awaitable[None]], partitions: Sequence[int]) -> None:
    for at in range(0, len(partitions), _AT_ONCE):
        await asyncio.gather(*map(work, partitions[at : at + _AT_ONCE]))


def check_layout(record: dict[bytes, bytes]) -> None:
    """Check that this version can use the inbox with this record of `keys.PARTITIONS`.

    Raises:
        LaterLayout: it cannot.
    """
    found = int(record.get(b"layout", LAYOUT))
    if found > LAYOUT:
        raise LaterLayout(
            f"a later version of Offhook has written the inbox (layout {found}; this version "
            f"knows {LAYOUT}): install that version again, or restore the backup from before it"
        )


def _earlier(record: dict[bytes, bytes]) -> dict[int, int]:
    """The earlier numbers, and until when each was in use, in ms since 1970."""
    return {int(name): int(until) for name, until in record.items() if name.isdigit()}


def _readable(stored: bytes) -> str:
    """The name of a stored event's call; empty if the event cannot be read."""
    try:
        return name_of(stored)
    except ValueError:
        return ""
