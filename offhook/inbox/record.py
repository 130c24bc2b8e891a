"""`Record`: reads the record of deliveries, and deletes from it."""

import heapq
from collections.abc import AsyncIterator, Iterable, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple

import msgspec
from redis.asyncio import Redis
from redis.commands.core import AsyncScript

from offhook.event import CallEvent
from offhook.inbox import keys
from offhook.inbox.call_store import FOLDED
from offhook.inbox.positions import order_of, position_at
from offhook.inbox.record_part import AttemptOutcome, AttemptsAtEvent, RecordedAttempt
from offhook.inbox.scripts import script
from offhook.inbox.stream import Inbox

_FIRST_READ, _LARGEST_READ = 4, 512  # parts in one read of a list
_AT_ONCE = 100  # calls whose attempts are read together
_LATEST = 64  # parts of a call in which one is looked for first
_TRIM = 500  # calls that are trimmed in one step
MOST_PARTS = 50_000  # parts that are searched for one page

_names = msgspec.json.Decoder(list[str]).decode
_events = msgspec.json.Decoder(list[AttemptsAtEvent]).decode


class WantedAttempts(msgspec.Struct, frozen=True):
    """Which attempts to list.

    Attributes:
        outcomes: all if empty.
        call: the call's name, `PBX/CALLID`.
        since, until: they ended at or after, and before these moments.
    """

    handler: str | None = None
    outcomes: frozenset[AttemptOutcome] = frozenset()
    call: str | None = None
    since: datetime | None = None
    until: datetime | None = None


class Place(NamedTuple):
    """A place in the list of attempts. Newer ones are larger, and come first.

    Attributes:
        milliseconds, number: the position of a part of the record, which was written in one step.
        partition: where that is.
        left: how many attempts of the part come after this place.
    """

    milliseconds: int
    number: int
    partition: int
    left: int

    @classmethod
    def read(cls, text: str) -> "Place":
        """The inverse of `str`. Raises `ValueError` for anything else."""
        numbers = [int(each) for each in text.split("-") if each.isdecimal()]
        if len(numbers) != 4 or text.count("-") != 3:
            raise ValueError(f"{text!r} is not the end of a page")
        return cls(*numbers)

    def __str__(self) -> str:
        return "-".join(map(str, self))

    @property
    def moment(self) -> datetime:
        """When the part was written."""
        return datetime.fromtimestamp(self.milliseconds / 1000, UTC)


class AttemptsPage(msgspec.Struct, frozen=True):
    """Some attempts, newest first.

    Attributes:
        following: `before` of the next page; None if this is the last one.
        searched: back to when, if the search was cut short before the page was full.
    """

    attempts: list[RecordedAttempt]
    following: str | None = None
    searched: datetime | None = None


class _Part(NamedTuple):
    """A part of the record in a list by time."""

    position: bytes
    partition: int
    calls: list[str]
    handlers: list[str]

    @property
    def place(self) -> Place:
        return Place(*order_of(self.position), self.partition, 0)


_Placed = tuple[Place, RecordedAttempt]


class Record:
    """The record of an inbox's deliveries. A call has the name that its events give it."""

    def __init__(self, inbox: Inbox) -> None:
        self._inbox = inbox
        self._redis: Redis = inbox.redis
        self._trim: AsyncScript = self._redis.register_script(script("trim_record"))
        self._forget: AsyncScript = self._redis.register_script(script("forget_attempts"))

    async def of_call(self, call: str, events: Iterable[CallEvent]) -> list[RecordedAttempt]:
        """The attempts at a call's events, in the order in which they began.

        Args:
            call: `PBX/CALLID`, or `PBX/CALLID~2` for the second call with this CallID, and so on.
            events: those that were folded into it; calls with one CallID share their record.
        """
        ids = {event.id: number for number, event in enumerate(events)}
        found = []
        for name in dict.fromkeys((call, call.rpartition("~")[0] or call)):
            for _, each in await self._placed(name):
                if each.event in ids or (name == call and each.type not in FOLDED):
                    found.append(each)
        # Several may begin in one millisecond: then in the order of the events.
        return sorted(
            found, key=lambda each: (each.began, ids.get(each.event, len(ids)), each.attempt)
        )

    async def page(
        self, wanted: WantedAttempts, most: int, before: str | None = None, tenant: str = ""
    ) -> AttemptsPage:
        """The newest attempts that are wanted.

        Args:
            most: number of attempts.
            before: `following` of the page before.
            tenant: whose attempts to list, unless those of one call are wanted.

        Raises:
            ValueError: `before` is nothing of that kind.
        """
        start = Place.read(before) if before else None
        found: list[_Placed] = []
        if wanted.call is not None:
            placed = await self._placed(wanted.call)
            found = [each for each in placed if _is_wanted(each, wanted, start)]
            return _page(sorted(found, reverse=True, key=lambda each: each[0]), most)
        batch: list[_Part] = []
        searched = 0
        async for part in self._listed(wanted, start, tenant):
            searched += 1
            if wanted.handler in (None, *part.handlers):
                batch.append(part)
            cut = searched == MOST_PARTS
            if cut or sum(len(each.calls) for each in batch) >= _AT_ONCE:
                found += await self._read(batch, wanted, start)
                batch = []
                if len(found) > most:
                    break
                if cut:
                    attempts = [each for _, each in found]
                    return AttemptsPage(attempts, str(part.place), part.place.moment)
        found += await self._read(batch, wanted, start)
        return _page(found, most)

    async def _placed(self, call: str) -> list[_Placed]:
        """The attempts at a call's events, and their places among them."""
        found: list[_Placed] = []
        for partition in self._inbox.numbering.candidates(call):
            parts: Any = await self._redis.lrange(keys.tried(partition, call), 0, -1)
            for part in parts:
                position, _, stored = part.partition(b" ")
                found += _ranked(position, partition, _attempts(call, stored))
        return found

    async def _listed(
        self, wanted: WantedAttempts, start: Place | None, tenant: str
    ) -> AsyncIterator[_Part]:
        """The parts of all partitions that may have what is wanted, newest first."""
        delivered = not wanted.outcomes or AttemptOutcome.DELIVERED in wanted.outcomes
        table = keys.recorded if delivered else keys.failures
        latest = "(" + position_at(wanted.until) if wanted.until else "+"
        if start is not None and (wanted.until is None or start.moment < wanted.until):
            latest = f"{start.milliseconds}-{start.number}"
        earliest = position_at(wanted.since) if wanted.since else "-"
        heads: list[tuple[tuple[int, ...], _Part, AsyncIterator[_Part]]] = []

        async def push(parts: AsyncIterator[_Part]) -> None:
            async for part in parts:
                heapq.heappush(heads, (tuple(-number for number in part.place), part, parts))
                return

        for partition in [*range(self._inbox.partitions), *await self._inbox.beyond()]:
            key = table(partition, tenant)
            await push(self._parts(key, partition, latest, earliest))
        while heads:
            _, part, parts = heapq.heappop(heads)
            yield part
            await push(parts)

    async def _parts(
        self, key: str, partition: int, latest: str, earliest: str
    ) -> AsyncIterator[_Part]:
        """The parts in one list between two positions, newest first."""
        count = _FIRST_READ
        while True:
            found: Any = await self._redis.xrevrange(key, latest, earliest, count)
            for position, fields in found:
                yield _Part(position, partition, _names(fields[b"c"]), _names(fields[b"h"]))
            if len(found) < count:
                return
            latest = f"({found[-1][0].decode()}"
            count = min(_LARGEST_READ, 2 * count)

    async def _read(
        self, parts: Sequence[_Part], wanted: WantedAttempts, start: Place | None
    ) -> list[_Placed]:
        """The attempts of these parts that are wanted, newest first."""
        names = list({(part.partition, call): None for part in parts for call in part.calls})
        latest = await self._last_parts(names)
        found: list[_Placed] = []
        for part in parts:
            attempts: list[RecordedAttempt] = []
            for call in part.calls:
                stored = latest[part.partition, call].get(part.position)
                attempts += _attempts(call, stored) if stored else ()
            ranked = _ranked(part.position, part.partition, attempts)
            found += (each for each in ranked if _is_wanted(each, wanted, start))
        return found

    async def _last_parts(
        self, names: Iterable[tuple[int, str]]
    ) -> dict[tuple[int, str], dict[bytes, bytes]]:
        """The parts of these calls by position: the last ones, or all of the few with many."""
        found = {}
        names = list(names)
        async with self._redis.pipeline(transaction=False) as pipeline:
            for partition, call in names:
                pipeline.lrange(keys.tried(partition, call), -_LATEST, -1)
            answers = await pipeline.execute()
        for (partition, call), parts in zip(names, answers, strict=True):
            if len(parts) == _LATEST:
                parts = await self._redis.lrange(keys.tried(partition, call), 0, -1)
            split = (part.partition(b" ") for part in parts)
            found[partition, call] = {position: stored for position, _, stored in split}
        return found

    # Deleting

    async def trim(self, partition: int) -> None:
        """Delete the attempts that were made before the oldest event that is kept was accepted."""
        for tenant in await self._inbox.tenants(partition):
            oldest: Any = await self._redis.xrange(keys.inbox(partition, tenant), count=1)
            before = oldest[0][0] if oldest else f"{(await self._redis.time())[0]}000-0"
            tables = [keys.recorded(partition, tenant), keys.failures(partition, tenant)]
            prefix = keys.tried(partition, "")
            while await self._trim(keys=tables, args=[prefix, before, _TRIM]):
                pass

    async def erase(self, partition: int, calls: Iterable[str]) -> None:
        """Delete the attempts at these calls' events."""
        names = [keys.tried(partition, call) for call in calls]
        if names:
            await self._redis.delete(*names)

    async def forget(self, handler: str) -> None:
        """Delete the attempts of a handler."""
        for partition in [*range(self._inbox.partitions), *await self._inbox.beyond()]:
            for tenant in await self._inbox.tenants(partition):
                key = keys.recorded(partition, tenant)
                async for part in self._parts(key, partition, "+", "-"):
                    if handler in part.handlers:
                        await self._forget_in(part, handler)

    async def _forget_in(self, part: _Part, handler: str) -> None:
        lists = [keys.tried(part.partition, call) for call in part.calls]
        await self._forget(keys=lists, args=[handler])


def _attempts(call: str, stored: bytes) -> list[RecordedAttempt]:
    return [RecordedAttempt.of(call, at, made) for at in _events(stored) for made in at.attempts]


def _ranked(position: bytes, partition: int, attempts: Sequence[RecordedAttempt]) -> list[_Placed]:
    """The attempts of one part, newest first, each with its place."""
    ordered = sorted(attempts, key=_order, reverse=True)
    at = order_of(position)
    return [
        (Place(*at, partition, left), each)
        for left, each in zip(range(len(ordered) - 1, -1, -1), ordered, strict=True)
    ]


def _order(each: RecordedAttempt) -> tuple[float, str, str, int]:
    return each.began.timestamp() + each.took, each.event, each.handler, each.attempt


def _is_wanted(placed: _Placed, wanted: WantedAttempts, start: Place | None) -> bool:
    place, each = placed
    return (
        wanted.handler in (None, each.handler)
        and (not wanted.outcomes or each.outcome in wanted.outcomes)
        and (wanted.since is None or place.moment >= wanted.since)
        and (wanted.until is None or place.moment < wanted.until)
        and (start is None or place < start)
    )


def _page(found: Sequence[_Placed], most: int) -> AttemptsPage:
    shown = found[:most]
    more = len(found) > most
    return AttemptsPage([each for _, each in shown], str(shown[-1][0]) if more else None)
